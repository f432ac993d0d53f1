"""Whether an export answers as its adapter does: a few texts through both."""

import json

import numpy as np

from raylora.demo import REVIEWS
from raylora.errors import ModelError
from raylora.model.lora.manifest import Manifest
from raylora.model.tokens import Text

FEW, FEW_WORDS = 6, 2


def check_texts(manifest: Manifest) -> list[Text]:
    """Short ones, and one that is cut where a tokenizer can be told to cut it so; else none is long enough for that."""
    lines = REVIEWS.read_text(encoding="utf-8").splitlines()[: 2 * FEW]
    texts: list[str] = [json.loads(line)["text"] for line in lines]
    if manifest.takes_pairs:
        return list(zip(texts[:FEW], texts[FEW:], strict=True))
    if manifest.truncation not in ("start", "end"):
        return [" ".join(text.split()[:FEW_WORDS]) for text in texts[:FEW]]
    return [*texts[:FEW], " ".join(texts * manifest.max_length)[: 20 * manifest.max_length]]


def check_same(exported: np.ndarray, own: np.ndarray, most: float, what: str) -> float:
    """The largest difference between two [N, C] of logits, in terms of the largest logit where that is above 1.

    Raises:
        ModelError: it is more than `most`.
    """
    apart = float(np.abs(exported - own).max() / max(1.0, float(np.abs(own).max())))
    if not apart <= most:  # nan too
        raise ModelError(
            f"{what} answers otherwise than the adapter: logits differ by {apart:.2g}, where {most:g} is rounding. "
            "Nothing was written. Serve the adapter itself (`raylora serve`), and please report the base model."
        )
    return apart
