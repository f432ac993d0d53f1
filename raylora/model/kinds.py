"""Which texts an adapter takes: single ones, or pairs."""

from collections.abc import Sequence

from raylora.errors import DataError
from raylora.model.lora.manifest import Manifest
from raylora.model.tokens import Text


def check_kind(manifest: Manifest, texts: Sequence[Text], word: str) -> None:
    """Raises:
    DataError: a text is a pair where the adapter was trained on single ones, or the other way round.

    Args:
        word: for a text, in the message.
    """
    takes = manifest.takes_pairs
    if takes is None:
        return
    wrong = next((i for i, text in enumerate(texts) if isinstance(text, str) == takes), None)
    if wrong is None:
        return
    if takes:
        raise DataError(
            f"{word} {wrong} is a single text; this adapter was trained on pairs and takes [text, text], in "
            "`raylora predict` with --pairs."
        )
    raise DataError(f"{word} {wrong} is a pair; this adapter was trained on single texts and takes those alone.")
