"""How tests read files of data: by the functions that a job reads them by."""

from pathlib import Path
from typing import Any

from raylora.cluster.data.rows import Row, Source
from raylora.cluster.data.sources import list_sources, read_rows
from raylora.config import DataSection
from raylora.errors import EmptyFileError

# what people put into cells; all of it can stand in any format
AWKWARD = [
    "plain",
    'she said "hi", twice',
    "a\nline break; and\ttab | bar, comma",
    "CR\r\nLF",
    "😀 emoji, ünïcode 評価",
    "nul \0 here",
    "'single' and `back`",
    "  padded  ",
    '"',
    "back\\slash \\n",
    "{'a': [1]}",
    "é\u2028line separator\x85",
]
LABELS = ["a", "b", "a, b", "ü", "1", "x y"]
ROWS = [(text, LABELS[i % len(LABELS)]) for i, text in enumerate(AWKWARD)]


def read_path(path: str | Path | list[str], **data: Any) -> list[Row]:
    """All rows that a job trains on."""
    section = DataSection(train=path if isinstance(path, list) else str(path), **data)
    return [row for source in list_sources(section) for row in rows_of(source, section)]


def rows_of(source: Source, section: DataSection) -> list[Row]:
    """As the tasks of Ray Data take them: beside others an empty file has none."""
    try:
        return list(read_rows(source, section))
    except EmptyFileError:
        return []


def pairs(rows: list[Row]) -> list[tuple[str, str]]:
    """Texts and labels, of rows without a fault."""
    assert [row.fault for row in rows] == [None] * len(rows)
    return [(row.text, row.label) for row in rows]
