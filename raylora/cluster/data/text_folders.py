"""A folder per class of text files: each file is a row, its folder's name the label."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from raylora.cluster.data.columns import wanted_columns
from raylora.cluster.data.encodings import undecodable
from raylora.cluster.data.rows import Part, Row, Source, check_row
from raylora.cluster.data.streams import open_text
from raylora.cluster.storage.filesystem import base_name, inside
from raylora.config import DataSection
from raylora.errors import DataError


def text_rows(source: Source, data: DataSection, part: Part) -> Iterator[Row]:
    """Args:
    part: files, by their order.

    Raises:
        DataError: the config names a pair column.
    """
    if data.text_pair_column:
        raise DataError(
            f"{source.path} is a folder of texts, each a row: there is no '{data.text_pair_column}' beside it "
            "(`data.text_pair_column`)."
        )
    for place, member in enumerate(source.members[part.start : part.end], part.start + 1):
        yield _row(place, inside(source.path, member), source.name, data)


def _row(place: int, path: str, label: str, data: DataSection) -> Row:
    """A file that cannot be read costs its own row, no other."""
    try:
        with open_text(path, declared=data.encoding) as text:
            values = [text.read(), label]
            encoding = text.encoding
    except DataError as error:
        return Row(place, fault=str(error).removeprefix(f"{path} "))
    record = {"file": f"{label}/{base_name(path)}", data.text_column: values[0]}
    fault = undecodable(place, values, list(wanted_columns(data).values()), encoding)
    return fault or check_row(place, values, data, record)


def cut_folder(source: Source, part_bytes: int) -> list[Part]:
    """Parts of as many files each: of one class they are of like size."""
    count = min(-(-(source.size or 0) // part_bytes), len(source.members)) or 1
    edges = [len(source.members) * i // count for i in range(count + 1)]
    return [Part(start, end, start) for start, end in pairwise(edges)]


def head_of_folder(source: Source, data: DataSection, most: int) -> dict[str, list[Any]]:
    """The first texts, as a column beside one of their labels."""
    rows: Sequence[Row] = list(text_rows(source, data, Part(0, most)))
    return {"text": [row.text for row in rows], "label": [source.name for _ in rows]}
