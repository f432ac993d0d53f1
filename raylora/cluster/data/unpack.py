"""Compressed files, by their ending: .gz, .bz2, .zst, and .zip with one file in it. Read as a stream, never at once."""

import bz2
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Callable
from typing import IO, Any

import pyarrow as pa

from raylora.cluster.storage.filesystem import base_name, parts
from raylora.errors import DataError

PACKED = (".gz", ".bz2", ".zst", ".zip")
UNREAD = (".xz", ".lz4", ".7z", ".rar", ".tar", ".tgz")
FAULTS = (
    OSError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
    RuntimeError,
    NotImplementedError,
    pa.ArrowException,
)
PIECE = 2**18  # bytes of a bz2 read at once
SHOWN = 5


def packing_of(path: str) -> str | None:
    """The ending that says how a file is compressed; None of one that is not."""
    name = parts(path)[0].lower()
    return next((ending for ending in PACKED if name.endswith(ending)), None)


def unpacked_name(path: str) -> str:
    """A file's name without the ending of its compression."""
    name, ending = parts(path)[0], packing_of(path)
    return name[: -len(ending)] if ending else name


def member_name(path: str, stream: IO[bytes]) -> str:
    """The name of the one file in a zip.

    Raises:
        DataError: it is no zip, or holds none or several.
    """
    try:
        return _member(path, zipfile.ZipFile(stream)).filename
    except FAULTS as error:
        raise _broken(path, error) from None


def unpack(path: str, begin: Callable[[], IO[bytes]]) -> IO[bytes]:
    """The bytes in a compressed file; `seek` to an earlier place begins anew.

    Args:
        begin: opens the file; a decompressor closes what it reads.

    Raises:
        DataError: it is broken, here or while it is read; a zip does not hold exactly one file.
    """
    unpacked: Any = Unpacked(path, begin, _OPENERS[packing_of(path) or ""])
    return unpacked


class Unpacked(io.BufferedIOBase):
    """What a decompressor yields, with its errors as DataErrors that name the file."""

    def __init__(self, path: str, begin: Callable[[], IO[bytes]], opener: Callable[[str, IO[bytes]], Any]) -> None:
        self._path, self._begin, self._opener = path, begin, opener
        self._inner: Any = None
        self._stream = begin()
        self._at = 0

    def read(self, size: int | None = -1, /) -> bytes:
        try:
            if self._inner is None:
                self._inner = self._opener(self._path, self._stream)
            found: bytes = self._inner.read() if size is None or size < 0 else self._inner.read(size)
        except FAULTS as error:
            raise _broken(self._path, error) from None
        self._at += len(found)
        return found

    def seek(self, offset: int, whence: int = 0, /) -> int:
        assert whence == 0, "what is unpacked has no known end"
        if offset < self._at:
            self._stream.close()
            self._stream, self._inner, self._at = self._begin(), None, 0
        while self._at < offset and self.read(min(offset - self._at, 2**20)):
            pass
        return self._at

    def close(self) -> None:
        self._stream.close()
        super().close()


class _Bz2(io.RawIOBase):
    """Streams one after another, as several cores write them. BZ2File takes a later one that is broken for the end, and
    what follows is lost without a word."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._inner, self._piece = stream, bz2.BZ2Decompressor(), b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        found = b""
        while not found and self._fill():
            found, self._piece = self._inner.decompress(self._piece, len(buffer)), b""
        buffer[: len(found)] = found
        return len(found)

    def _fill(self) -> bool:
        """Whether there is more: what the decompressor holds yet, the next piece, or another stream.

        Raises:
            EOFError: a stream has no end.
        """
        if self._inner.eof:
            self._piece = self._inner.unused_data or self._stream.read(PIECE)
            self._inner = bz2.BZ2Decompressor() if self._piece else self._inner
            return bool(self._piece)
        if self._inner.needs_input:
            self._piece = self._stream.read(PIECE)
            if not self._piece:
                raise EOFError("it ends before its end")
        return True


def _broken(path: str, error: BaseException) -> DataError:
    if isinstance(error, DataError):
        return error
    if isinstance(error, RuntimeError) and "password" in str(error):
        return DataError(f"{path} needs a password. Unpack it.")
    return DataError(f"{path} cannot be unpacked: {str(error) or type(error).__name__}. Is it whole?")


def _member(path: str, archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    inside = [info for info in archive.infolist() if not info.is_dir() and _is_data(info.filename)]
    if len(inside) == 1:
        return inside[0]
    shown = ", ".join(info.filename for info in inside[:SHOWN]) + (" …" if len(inside) > SHOWN else "")
    raise DataError(
        f"{path} holds {len(inside)} files{': ' + shown if inside else ''}; a zip is read that holds exactly one. "
        "Unpack it, and name the file or the folder."
    )


def _is_data(name: str) -> bool:
    return not name.startswith("__MACOSX/") and not base_name(name).startswith(".")


def _open_zip(path: str, stream: IO[bytes]) -> IO[bytes]:
    archive = zipfile.ZipFile(stream)
    return archive.open(_member(path, archive))


_OPENERS: dict[str, Callable[[str, IO[bytes]], Any]] = {
    ".gz": lambda _, stream: gzip.GzipFile(fileobj=stream),
    ".bz2": lambda _, stream: io.BufferedReader(_Bz2(stream)),
    ".zst": lambda _, stream: pa.CompressedInputStream(stream, "zstd"),
    ".zip": _open_zip,
}
