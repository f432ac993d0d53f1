"""What is kept of a text that is longer than `data.max_length`."""

from typing import TYPE_CHECKING, Any, Protocol

from raylora.config.data import Truncation
from raylora.errors import ConfigError

if TYPE_CHECKING:
    from tokenizers import Encoding

HEAD = 4  # without the middle: a quarter is the head, as 128 of 510 tokens are in Sun et al. 2019, sec. 5.3.1


class Cut(Protocol):
    """What a job's `data` and an adapter's manifest say of long texts."""

    @property
    def max_length(self) -> int: ...
    @property
    def truncation(self) -> Truncation: ...
    @property
    def stride(self) -> int: ...
    @property
    def max_windows(self) -> int: ...


def most_tokens(cut: Cut, special: int) -> int:
    """Of a text that is kept whole, special ones included.

    Args:
        special: tokens that are added to each text.
    """
    if cut.truncation != "windows":
        return cut.max_length
    return cut.max_length + (cut.max_windows - 1) * (cut.max_length - special - cut.stride)


def limit_in_words(cut: Cut) -> str:
    """Which key cuts the texts that are longer."""
    if cut.truncation != "windows":
        return f"data.max_length={cut.max_length}"
    return f"data.max_windows={cut.max_windows} of {cut.max_length} tokens"


def check_stride(tokenizer: Any, max_length: int, stride: int) -> None:
    """Raises:
    ConfigError: windows of a `transformers` tokenizer would share all they hold.
    """
    special = int(tokenizer.num_special_tokens_to_add())
    if stride and stride >= max_length - special:
        raise ConfigError(
            f"`data.stride` must be less than `data.max_length` without a window's {special} special tokens, found a "
            f"stride of {stride} with windows of {max_length}. Lower the one or raise the other."
        )


def windows_of(encoding: "Encoding", most: int) -> list[list[int]]:
    """The ids of each window of a text, special ones included, of the first `most` of them."""
    return [encoding.ids, *(more.ids for more in encoding.overflowing[: most - 1])]


def without_middle(encoding: "Encoding", most: int) -> list[int]:
    """The ids, or of more than `most` so many: the special ones at both ends, and between them the head and the tail of
    the text."""
    ids, special = encoding.ids, encoding.special_tokens_mask
    if len(ids) <= most:
        return ids
    before, after = special.index(0), special[::-1].index(0)
    head = before + (most - before - after) // HEAD
    return ids[:head] + ids[len(ids) - most + head :]
