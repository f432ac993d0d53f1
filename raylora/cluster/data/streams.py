"""Files as streams of bytes and of characters: local, on object storage or the web, compressed or not."""

import io
import shutil
import sys
import tempfile
from typing import IO, Any, TextIO

from raylora.cluster.data import web
from raylora.cluster.data.content import LOOKED_AT, check_text
from raylora.cluster.data.encodings import BOM, encoding_of, errors_of
from raylora.cluster.data.rows import Part
from raylora.cluster.data.unpack import packing_of, unpack
from raylora.cluster.storage.filesystem import locate
from raylora.errors import DataError

WHOLE = Part()
PIECE = 2**22  # bytes read at once


def open_input(path: str) -> IO[bytes]:
    """A readable, seekable stream of a local path, a web address or any URI that pyarrow knows (s3://, gs://, hdfs://);
    of a compressed file its bytes as they are."""
    try:
        return locate(web.local_copy(path) if web.is_web(path) else path).open()
    except OSError as error:
        raise DataError(f"{path} cannot be opened: {error}") from None


def unpacked(path: str) -> IO[bytes]:
    """As `open_input`, of what is in a compressed file; that is read from its begin to its end."""
    return unpack(path, lambda: open_input(path)) if packing_of(path) else open_input(path)


def open_table(path: str) -> IO[bytes]:
    """As `unpacked`, seekable at will: a compressed table lies on disk meanwhile."""
    if not packing_of(path):
        return open_input(path)
    with unpacked(path) as stream:
        spooled = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
        shutil.copyfileobj(stream, spooled, PIECE)
    spooled.seek(0)
    return spooled


def open_text(path: str, part: Part = WHOLE, declared: str | None = None) -> TextIO:
    """A text stream of a file, or of a part of it, without a byte order mark at the file's begin.

    Bytes that are not of its encoding come as lone surrogates, so that one bad row does not cost the file.

    Args:
        declared: `data.encoding`; a byte order mark is surer.

    Raises:
        DataError: the file cannot be opened, or is no text.
    """
    piece = Piecewise(unpacked(path), part.start, part.end)
    head = piece.read1(LOOKED_AT) if not part.start else _begin(path) if declared else b""
    encoding = encoding_of(path, head, declared)
    if not part.start:
        check_text(path, head, encoding)
        piece.seek(0)
    elif encoding == "utf-8-sig":
        encoding = "utf-8"
    wrapped: Any = piece
    return io.TextIOWrapper(wrapped, encoding=encoding, errors=errors_of(encoding), newline="")


def open_bytes_as_text(path: str) -> TextIO:
    """A character a byte, without the byte order mark of UTF-8: what tells rows apart is ASCII in what can be cut."""
    start = len(BOM) if _begin(path).startswith(BOM) else 0
    wrapped: Any = Piecewise(open_input(path), start, None)
    return io.TextIOWrapper(wrapped, encoding="latin-1", newline="")


def _begin(path: str) -> bytes:
    with open_input(path) as stream:
        return stream.read(4)


class Piecewise(io.BufferedIOBase):
    """Bytes `start` to before `end` of a stream, read in large pieces; the last is kept.

    TextIOWrapper asks for 8 KiB at a time, which on object storage is a request each.
    """

    def __init__(self, stream: IO[bytes], start: int, end: int | None) -> None:
        self._stream, self.start = stream, start
        measure = getattr(stream, "size", None)  # pyarrow's; what is unpacked has none
        size: int = measure() if measure else sys.maxsize
        self._end = size if end is None else min(end, size)
        self._at = self._piece_at = start
        self._piece = b""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at - self.start

    def seek(self, offset: int, whence: int = 0, /) -> int:
        assert whence == 0, "TextIOWrapper goes back to the begin, and nowhere else"
        self._at = self.start + offset
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
