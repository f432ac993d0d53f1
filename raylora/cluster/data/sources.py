"""The files of a job: found, opened, read row by row. Knows no ray: Ray Data calls `read_rows` in its tasks."""

from collections.abc import Iterator
from typing import TextIO

from raylora.cluster.data import web
from raylora.cluster.data.delimited import Header, delimited_rows, read_header
from raylora.cluster.data.endings import decide_format
from raylora.cluster.data.find import find_files
from raylora.cluster.data.json_text import json_rows, jsonl_rows
from raylora.cluster.data.rows import Part, Row, Source, Split
from raylora.cluster.data.streams import WHOLE, open_table, open_text
from raylora.cluster.data.tables import arrow_rows, hub_rows, parquet_rows
from raylora.cluster.data.text_folders import text_rows
from raylora.config import DataSection
from raylora.demo import REVIEWS
from raylora.errors import DataError, EmptyFileError
from raylora.records import Say

HEADER_BYTES = 2**20  # in which a csv's header ends


def list_sources(data: DataSection, say: Say = lambda line: None) -> list[Source]:
    """The files of every split, in a fixed order; the head of the first of each split is read at once.

    Args:
        say: takes a line for each file that is fetched from the web.

    Raises:
        DataError: nothing is there, a file is empty or not of its format, a column is missing.
    """
    sources: list[Source] = []
    named: list[tuple[Split, str | list[str] | None]] = [
        ("train", data.train or str(REVIEWS)),
        ("validation", data.validation),
        ("test", data.test),
    ]
    for split, where in named:
        web.fetch(where, say)
        found = sources_of(where or [], split, data)
        _check_heads(found, data)
        sources += found
    return sources


def sources_of(where: str | list[str], split: Split, data: DataSection, most: int | None = None) -> list[Source]:
    """The files that addresses stand for, or the first of them, with their formats decided.

    Raises:
        DataError: nothing is there, or a file's name tells no format.
    """
    return [
        Source(file.path, split, file.format or decide_format(file.path, data.format), file.size, file.members)
        for file in find_files(where, data.format, split)[:most]
    ]


def _check_heads(sources: list[Source], data: DataSection) -> None:
    """Fail early on files that can yield nothing; an empty one is left to those after it.

    Raises:
        DataError: as `check_head`; all are empty.
    """
    empty: EmptyFileError | None = None
    for source in sources:
        try:
            check_head(source, data)
        except EmptyFileError as error:
            empty = empty or error
        else:
            return
    if empty:
        raise empty


def check_head(source: Source, data: DataSection) -> None:
    """Fail early on a file that can yield nothing.

    Raises:
        EmptyFileError: it holds no row.
        DataError: it is undecodable, not of its format or lacks a column.
    """
    row = next(read_rows(source, data), None)
    if row is None:
        raise EmptyFileError(f"{source.path} holds no rows: {'only a header' if source.size else 'it is empty'}.")


def read_rows(source: Source, data: DataSection, part: Part = WHOLE) -> Iterator[Row]:
    """Every record of a file, or of a part of it, in order, bad ones too.

    Raises:
        EmptyFileError: the file holds nothing, not even a header.
        DataError: the file as a whole cannot be read.
    """
    if web.is_web(source.path):
        _check_same(source)
    if source.path.startswith("hf://"):
        yield from hub_rows(source, data)
    elif source.format == "text":
        yield from text_rows(source, data, part)
    elif source.format in ("parquet", "arrow"):
        if source.size == 0:
            raise EmptyFileError(f"{source.path} is empty.")
        reader = parquet_rows if source.format == "parquet" else arrow_rows
        with open_table(source.path) as stream:
            yield from reader(source, stream, data, part)
    else:
        yield from _text_rows(source, data, part)


def _text_rows(source: Source, data: DataSection, part: Part) -> Iterator[Row]:
    with open_text(source.path, part, data.encoding) as text:
        if source.format == "json":
            yield from json_rows(source, text, data)
        elif source.format == "jsonl":
            yield from jsonl_rows(source, text, data, part)
        else:
            yield from delimited_rows(source, text, data, _header(source, text, data, part), part)


def _header(source: Source, text: TextIO, data: DataSection, part: Part) -> Header:
    """Of every part what the whole file's first rows say, not those that the first part happens to hold."""
    if part == WHOLE:
        return read_header(source.path, source.format, text, data)
    with open_text(source.path, Part(end=HEADER_BYTES), data.encoding) as head:
        return read_header(source.path, source.format, head, data)


def _check_same(source: Source) -> None:
    """Raises:
    DataError: this node fetched another file than the driver: its rows would not be where they were cut.
    """
    size = web.size_of(source.path)
    if size != source.size:
        raise DataError(f"{source.path} changed while it was read: {source.size} bytes, then {size}. Start anew.")
