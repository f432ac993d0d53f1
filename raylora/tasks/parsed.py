"""A label as a file holds it, and what is wrong with it."""

import math
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from raylora.errors import DataError

LISTED = re.compile(r"\[\s*(['\"]).*\1\s*\]")  # as pandas writes a column of lists to a csv
LARGEST = 3e38  # float32's end
MOST_DIGITS = 100  # of a Decimal: Decimal("1e999999999") as an int would fill the memory
SEPARATOR = " | "  # of several values in a cell that raylora writes


@dataclass(frozen=True)
class Parsed:
    """A label as text, the same for what means the same; `fault` says why it cannot be one."""

    form: str = ""
    fault: str | None = None


@dataclass(frozen=True)
class LabelColumn:
    """What the config says of labels: the column's name, `data.labels`, `data.label_separator`."""

    name: str = "label"
    labels: tuple[str, ...] | None = None
    separator: str | None = None


def plain(value: Any) -> Any:
    """A Decimal, as databases and Spark write numbers, as Python's int or float; all else as it is."""
    if not isinstance(value, Decimal):
        return value
    if not value.is_finite():
        return float("nan" if value.is_nan() else value)
    is_whole = value.adjusted() < MOST_DIGITS and value == value.to_integral_value()
    return int(value) if is_whole else float(value)


def as_number(value: Any) -> float | None:
    """A label that is a number, of a csv also as text; None of all else, and of what float32, as targets are, cannot
    hold."""
    value = plain(value)
    written = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    if isinstance(written, bool) or (isinstance(written, str) and "_" in written):
        return None  # Python's own 1_000 is nobody else's
    try:
        number = float(written)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if abs(number) <= LARGEST else None


def as_text(value: Any, column: str) -> Parsed:
    """A label that is a string or a whole number, as text."""
    value = plain(value)
    if isinstance(value, bytes):
        value = value.decode("utf-8", "surrogateescape")
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return Parsed(fault=f"'{column}' is null")
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # pandas writes an int column with a null in it as floats
    if isinstance(value, bool):
        value = str(value).lower()
    if not isinstance(value, str | int):
        return Parsed(fault=f"'{column}' must be a string or an int, found {type(value).__name__} {str(value)[:40]!r}")
    label = str(value).strip()
    if not label:
        return Parsed(fault=f"'{column}' is blank")
    return Parsed(label, undecodable(label, column))


def undecodable(value: str, column: str) -> str | None:
    """Why a text of a file cannot be written as UTF-8."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        code = ord(value[error.start])
        what = f"byte 0x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"lone surrogate \\u{code:04x}"
        return f"'{column}' is not UTF-8: {what} at character {error.start}"
    return None


def written_list(form: str, column: str) -> str | None:
    """What is wrong with a text that is a list written down."""
    if not LISTED.fullmatch(form):
        return None
    return (
        f"'{column}' holds a list written as text, {form[:40]!r}: save the file as jsonl or parquet, which have lists, "
        "or join the labels and set data.label_separator"
    )


def not_among(form: str, column: LabelColumn) -> str | None:
    """What is wrong with a label that `data.labels` does not name."""
    if column.labels is None or form in column.labels:
        return None
    return f"label '{form}' is not one of `data.labels` ({', '.join(column.labels[:10])})"


def every(rows: int) -> str:
    """How a sentence on all rows begins."""
    return f"all {rows} rows carry" if rows > 1 else "the only row carries"


def no_rows() -> DataError:
    return DataError("no usable row is left in `data.train`.")
