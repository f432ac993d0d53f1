"""Rows as files hold them, each checked by itself.

A fault is a value, not an exception: the driver decides what a bad row means, and sees them all at once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from raylora.cluster.data.suggest import suggestion
from raylora.cluster.storage.filesystem import base_name, inside
from raylora.config import DataSection
from raylora.tasks import task_of
from raylora.tasks.parsed import Parsed, undecodable

Split = Literal["train", "validation", "test"]
NO_LABEL = Parsed()
BY_LINES = ("csv", "tsv", "txt", "jsonl")
SHOWN_FAULTS = 5


@dataclass(frozen=True)
class Source:
    """One file of a split. `path` is absolute or a URI; `format` is decided; `size` in bytes, where it is known.

    Of the format `text` it is a folder of a class: `members` are its files, each a row.
    """

    path: str
    split: Split
    format: str
    size: int | None = None
    members: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return base_name(self.path)

    def place(self, number: int) -> str:
        """Where a record stands: a line of a text file, a row of a table, a file of a folder."""
        if self.members:
            return inside(self.path, self.members[number - 1])
        unit = "line" if self.format in BY_LINES else "row"
        return f"{self.path}, {unit} {number}"


@dataclass(frozen=True)
class Part:
    """Consecutive rows of a file, from `start` to before `end` (None: its end): bytes of a text file, rows of a parquet
    file, record batches of an Arrow file, files of a folder.

    `before` counts the lines or rows of the file that lie before it.
    """

    start: int = 0
    end: int | None = None
    before: int = 0


@dataclass(frozen=True)
class Row:
    """One record. `place` counts lines (text formats) or rows from 1; `fault` says why the row cannot be used.

    `label` is the task's form of `value`, which is the label as the file holds it. `record` is all that the file holds
    of the row, by column; of tables with types, whose batches hold it (`tables.whole_batches`), and of a broken row,
    None.
    """

    place: int
    text: str = ""
    text_pair: str | None = None
    label: str = ""
    value: Any = None
    fault: str | None = None
    record: Mapping[str, Any] | None = None


def check_row(place: int, values: list[Any], data: DataSection, record: Mapping[str, Any] | None = None) -> Row:
    """A row from its raw text, label and (where configured) pair values."""
    text, text_fault = _as_text(values[0], data.text_column)
    pair, pair_fault = _as_text(values[2], str(data.text_pair_column)) if len(values) > 2 else (None, None)
    label = task_of(data.problem_type).parse(values[1], data.column) if data.is_labelled else NO_LABEL
    if fault := text_fault or pair_fault or _with_advice(label.fault, values[1]):
        return Row(place, value=values[1], fault=fault)
    return Row(place, text, pair, label.form, values[1], record=record)


def _as_text(value: Any, column: str) -> tuple[str, str | None]:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "surrogateescape")
    if value is None:
        return "", f"'{column}' is null"
    if not isinstance(value, str):
        return "", f"'{column}' must be text, found {type(value).__name__} {str(value)[:40]!r}"
    if not value.strip():
        return "", f"'{column}' is blank"
    return value, _with_advice(undecodable(value, column), value)


def _with_advice(fault: str | None, value: Any) -> str | None:
    """Which encoding a text may be in that is not UTF-8."""
    is_foreign = fault is not None and "is not UTF-8" in fault and isinstance(value, str)
    return f"{fault}{suggestion(value)}" if is_foreign else fault


def bad_rows_message(bad_rows: Sequence[Mapping[str, str]], rows: int, kept: str = "bad_rows.jsonl") -> str:
    """Args:
    bad_rows: of each its `place` and `reason`.
    kept: where they are listed when they are left out.
    """
    shown = "\n".join(f"  {r['place']}: {r['reason']}" for r in bad_rows[:SHOWN_FAULTS])
    more = f"\n  and {len(bad_rows) - SHOWN_FAULTS} more" if len(bad_rows) > SHOWN_FAULTS else ""
    if len(bad_rows) == rows:
        return f"None of the {rows} rows can be used:\n{shown}{more}\nAre the columns and `data.format` right?"
    return (
        f"{len(bad_rows)} of {rows} rows cannot be used:\n{shown}{more}\n"
        f"Mend them, or leave them out with data.on_bad_row=skip (they are then listed in {kept})."
    )
