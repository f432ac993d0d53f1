"""The files of a job: found, opened, read row by row. Knows no ray: Ray Data calls `read_rows` in its tasks."""

import io
from collections.abc import Iterator
from typing import IO

from raylora.cluster.data import formats
from raylora.cluster.data.content import LOOKED_AT, check_text
from raylora.cluster.data.find import decide_format, find_files
from raylora.cluster.data.rows import Row, Source, Split
from raylora.cluster.storage.filesystem import locate
from raylora.config import DataSection
from raylora.demo import REVIEWS
from raylora.errors import DataError, EmptyFileError


def list_sources(data: DataSection) -> list[Source]:
    """The files of every split, in a fixed order; the head of the first of each split is read at once.

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
        files = find_files(where or [], data.format)
        found = [Source(file.path, split, decide_format(file.path, data.format), file.size) for file in files]
        _check_heads(found, data)
        sources += found
    return sources


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


def read_rows(source: Source, data: DataSection) -> Iterator[Row]:
    """Every record of a file, in order, bad ones too.

    Raises:
        EmptyFileError: the file holds nothing, not even a header.
        DataError: the file as a whole cannot be read.
    """
    if source.path.startswith("hf://"):
        yield from formats.hub_rows(source, data)
        return
    if source.format == "parquet":
        if source.size == 0:
            raise EmptyFileError(f"{source.path} is empty.")
        with open_input(source.path) as stream:
            yield from formats.parquet_rows(source, stream, data)
        return
    reader = {"jsonl": formats.jsonl_rows, "json": formats.json_rows}.get(source.format, formats.csv_rows)
    with open_text(source.path) as text:
        yield from reader(source, text, data)


def open_input(path: str) -> IO[bytes]:
    """A readable, seekable stream of a local path or any URI that pyarrow knows (s3://, gs://, hdfs://)."""
    try:
        return locate(path).open()
    except OSError as error:
        raise DataError(f"{path} cannot be opened: {error}") from None


def open_text(path: str) -> IO[str]:
    """A text stream of UTF-8, with or without a byte order mark.

    Bytes that are not UTF-8 come as lone surrogates, so that one bad row does not cost the file.

    Raises:
        DataError: the file cannot be opened, or is no text.
    """
    stream = open_input(path)
    check_text(path, stream.read(LOOKED_AT), "text")
    stream.seek(0)
    return io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
