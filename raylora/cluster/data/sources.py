"""The files of a job: found, opened, read row by row. Knows no ray: Ray Data calls `read_rows` in its tasks."""

import codecs
import io
from collections.abc import Iterator
from typing import IO, Any

from raylora.cluster.data import formats
from raylora.cluster.data.content import LOOKED_AT, check_text
from raylora.cluster.data.find import decide_format, find_files
from raylora.cluster.data.rows import Part, Row, Source, Split
from raylora.cluster.storage.filesystem import locate
from raylora.config import DataSection
from raylora.demo import REVIEWS
from raylora.errors import DataError, EmptyFileError

BOM = codecs.BOM_UTF8
WHOLE = Part()
PIECE = 2**22  # bytes read at once
HEADER_BYTES = 2**20  # in which a csv's header ends


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
        files = find_files(where or [], data.format, split)
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


def read_rows(source: Source, data: DataSection, part: Part = WHOLE) -> Iterator[Row]:
    """Every record of a file, or of a part of it, in order, bad ones too.

    Raises:
        EmptyFileError: the file holds nothing, not even a header.
        DataError: the file as a whole cannot be read.
    """
    if source.path.startswith("hf://"):
        yield from formats.hub_rows(source, data)
    elif source.format == "parquet":
        if source.size == 0:
            raise EmptyFileError(f"{source.path} is empty.")
        with open_input(source.path) as stream:
            yield from formats.parquet_rows(source, stream, data, part)
    elif source.format in ("csv", "tsv"):
        yield from _csv_rows(source, data, part)
    else:
        reader = formats.json_rows if source.format == "json" else formats.jsonl_rows
        with open_text(source.path, part) as text:
            yield from reader(source, text, data, part)


def _csv_rows(source: Source, data: DataSection, part: Part) -> Iterator[Row]:
    with open_text(source.path, part) as text:
        if part.start:
            with open_text(source.path, Part(end=HEADER_BYTES)) as head:
                header = formats.read_header(source.path, source.format, head)
        else:
            header = formats.read_header(source.path, source.format, text)
        yield from formats.csv_rows(source, text, data, header, part)


def open_input(path: str) -> IO[bytes]:
    """A readable, seekable stream of a local path or any URI that pyarrow knows (s3://, gs://, hdfs://)."""
    try:
        return locate(path).open()
    except OSError as error:
        raise DataError(f"{path} cannot be opened: {error}") from None


def open_text(path: str, part: Part = WHOLE, encoding: str | None = None) -> IO[str]:
    """A text stream of a file, or of a part of it, without a byte order mark at the file's begin.

    Bytes that are not UTF-8 come as lone surrogates, so that one bad row does not cost the file.

    Raises:
        DataError: the file cannot be opened, or is no text.
    """
    stream = open_input(path)
    piece: Any = _Piecewise(stream, part.start, part.end)
    if not part.start:
        check_text(path, piece.read1(LOOKED_AT), "text")
        piece.seek(0)
    encoding = encoding or ("utf-8" if part.start else "utf-8-sig")
    return io.TextIOWrapper(piece, encoding=encoding, errors="surrogateescape", newline="")


class _Piecewise(io.BufferedIOBase):
    """Bytes `start` to before `end` of a stream, read in large pieces; the last is kept.

    TextIOWrapper asks for 8 KiB at a time, which on object storage is a request each.
    """

    def __init__(self, stream: IO[bytes], start: int, end: int | None) -> None:
        self._stream, self._start = stream, start
        size: int = stream.size()  # pyright: ignore[reportAttributeAccessIssue] - pyarrow's
        self._end = size if end is None else min(end, size)
        self._at = self._piece_at = start
        self._piece = b""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at - self._start

    def seek(self, offset: int, whence: int = 0, /) -> int:
        assert whence == 0, "TextIOWrapper goes back to the begin, and nowhere else"
        self._at = self._start + offset
        return offset

    def read1(self, size: int = -1, /) -> bytes:
        """Up to a whole piece, whatever `size`."""
        if not self._piece_at <= self._at < self._piece_at + len(self._piece):
            self._stream.seek(self._at)
            self._piece_at, self._piece = self._at, self._stream.read(max(min(PIECE, self._end - self._at), 0))
        found = self._piece[self._at - self._piece_at :]
        self._at += len(found)
        return found

    def read(self, size: int | None = -1, /) -> bytes:
        """All that is left; TextIOWrapper asks for nothing else."""
        return b"".join(iter(self.read1, b""))

    def close(self) -> None:
        self._stream.close()
        super().close()
