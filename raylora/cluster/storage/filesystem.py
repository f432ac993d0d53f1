"""The one door to storage: a file or folder, local or on object storage, by its address.

An address is a local path, also with `~` or as file:///, or a URI that pyarrow knows (s3://, gs://), whose options
(`?endpoint_override=...`) stay last. A URI may be typed with the odd characters of its path or with these quoted
(`%20`); `%3F` is a `?` in a name. Every operation raises OSError where storage fails: a caller has its own words.
"""

import errno
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import quote, unquote, unquote_to_bytes

import pyarrow as pa
import pyarrow.fs

IN_A_PATH = "/:@!$&'()+,;="  # of a URI, as it is (RFC 3986); `*` is left out, which looks like a glob


def plain(address: str) -> str:
    """A local path without file:// and `~`, still relative where it was; any other address as it is."""
    if address.startswith("file:///"):
        address = unquote(address.removeprefix("file://"))
    return address if is_remote(address) else os.path.expanduser(address)


def is_remote(address: str) -> bool:
    """Whether an address is a URI; file:/// is a way to write a local path."""
    return "://" in address and not address.startswith("file:///")


def parts(address: str) -> tuple[str, str, str]:
    """Of a URI: itself, `?` and its options; the last two are empty where it has none, and of a local path."""
    return address.partition("?") if is_remote(address) else (address, "", "")


def inside(address: str, name: str) -> str:
    """A folder or file in a folder; of a URI, file:/// too, its name is quoted."""
    folder, mark, options = parts(address)
    name = quote(name, IN_A_PATH) if "://" in address else name
    return f"{folder.rstrip('/')}/{name}{mark}{options}"


def parent(address: str) -> str:
    """The folder around a folder."""
    folder, mark, options = parts(address)
    return (folder.rstrip("/").rpartition("/")[0] or ("/" if folder.startswith("/") else ".")) + mark + options


def quoted(address: str) -> str:
    """A URI whose path is quoted, whether it was already or not: one spelling of each; a local path as it is."""
    if not is_remote(address):
        return address
    folder, mark, options = parts(address)
    scheme, colon, rest = folder.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{colon}{host}{slash}{quote(unquote_to_bytes(path), IN_A_PATH)}{mark}{options}"


def base_name(address: str) -> str:
    """What people call the file or folder of an address."""
    name = parts(address)[0].rstrip("/").rpartition("/")[2]
    return unquote(name) if "://" in address else name


@dataclass(frozen=True)
class Stat:
    """What storage says of a file or folder. `size`, in bytes, is a file's; a folder on object storage has no time."""

    is_folder: bool
    size: int | None
    mtime_ns: int | None


@dataclass(frozen=True)
class Location:
    """A file or folder, there or not.

    Args:
        address: absolute; a URI's path is quoted.
        path: the same within the filesystem.
    """

    address: str
    filesystem: pyarrow.fs.FileSystem
    path: str

    @property
    def is_local(self) -> bool:
        return isinstance(self.filesystem, pyarrow.fs.LocalFileSystem)

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def parent(self) -> "Location":
        """The folder around this file or folder."""
        return Location(parent(self.address), self.filesystem, parent(self.path))

    def inside(self, name: str) -> "Location":
        """A file or folder in this folder."""
        return Location(inside(self.address, name), self.filesystem, f"{self.path.rstrip('/')}/{name}")

    def stat(self) -> Stat | None:
        """None where nothing is there."""
        return _stat_or_none(self.filesystem.get_file_info(self.path))

    def stats(self, *names: str) -> list[Stat | None]:
        """Of some files in this folder, asked for at once; None of each that is not there."""
        return [_stat_or_none(info) for info in self.filesystem.get_file_info([self.inside(n).path for n in names])]

    def exists(self) -> bool:
        return self.stat() is not None

    def files(self) -> dict[str, Stat]:
        """What lies in this folder, folders too, by name; nothing where it is not there."""
        selector = pyarrow.fs.FileSelector(self.path, allow_not_found=True)
        return {info.base_name: _stat(info) for info in self.filesystem.get_file_info(selector)}

    def walk(self) -> dict[str, Stat]:
        """What lies in this folder and in those below, by the path within it; nothing where it is not there."""
        selector = pyarrow.fs.FileSelector(self.path, allow_not_found=True, recursive=True)
        below = len(self.path.rstrip("/")) + 1
        return {info.path[below:]: _stat(info) for info in self.filesystem.get_file_info(selector)}

    def open(self) -> IO[bytes]:
        """A readable, seekable stream."""
        return self.filesystem.open_input_file(self.path)  # pyright: ignore[reportReturnType]

    def read_text(self, most: int | None = None) -> str:
        """The text of a file in UTF-8; of one longer than `most` bytes, its last whole lines."""
        with self.filesystem.open_input_file(self.path) as file:
            cut = most is not None and file.size() > most
            if cut:
                file.seek(file.size() - (most or 0))
            text: str = file.read().decode("utf-8", errors="replace")
        return text.partition("\n")[2] if cut else text

    def write_text(self, text: str) -> None:
        """Write a file whole, with the folders around it: a reader sees the old content or the new, never a part."""
        part = f"{self.path}.part"
        self.parent.make_folder()
        with self.filesystem.open_output_stream(part, compression=None) as file:
            file.write(text.encode("utf-8"))
        self.filesystem.move(part, self.path)

    def append(self, text: str) -> None:
        """Add to the end of a file, which need not be there.

        Raises:
            NotImplementedError: object stores cannot; nothing was written.
        """
        self.parent.make_folder()
        with self.filesystem.open_append_stream(self.path, compression=None) as file:
            file.write(text.encode("utf-8"))

    def copy_from(self, folder: Path) -> None:
        """Copy a local folder here, in place of what was; it appears under its name only when it is whole."""
        part = Location(f"{self.address}.part", self.filesystem, f"{self.path}.part")
        for old in (part, self):
            old.delete()
        part.make_folder()
        pyarrow.fs.copy_files(str(folder), part.path, destination_filesystem=self.filesystem)
        if self.is_local:
            self.filesystem.move(part.path, self.path)
            return
        # object stores have no rename of a folder
        pyarrow.fs.copy_files(
            part.path, self.path, source_filesystem=self.filesystem, destination_filesystem=self.filesystem
        )
        part.delete()

    def add_from(self, folder: Path) -> None:
        """Copy the files of a local folder here, beside those that are there; of one name, over it."""
        pyarrow.fs.copy_files(str(folder), self.path, destination_filesystem=self.filesystem)

    def copy_to(self, folder: str | Path) -> None:
        """Copy the files of this folder into a local one."""
        pyarrow.fs.copy_files(self.path, str(folder), source_filesystem=self.filesystem)

    def free_bytes(self) -> int | None:
        """Room on the disk that this file or folder is on, or would be; None on object storage."""
        if not self.is_local:
            return None
        folder = Path(self.path)
        while not folder.is_dir():
            folder = folder.parent
        return shutil.disk_usage(str(folder)).free

    def make_folder(self) -> None:
        self.filesystem.create_dir(self.path, recursive=True)

    def delete(self) -> None:
        """Remove the file, or the folder with all it holds; nothing where it is not there."""
        stat = self.stat()
        if stat:
            (self.filesystem.delete_dir if stat.is_folder else self.filesystem.delete_file)(self.path)


def locate(address: str) -> Location:
    """Raises:
    OSError: no such kind of address, its options cannot be, or its host is not there.
    """
    address = quoted(plain(address))
    if not is_remote(address):
        path = os.path.abspath(address)
        return Location(path, pyarrow.fs.LocalFileSystem(), path)
    try:
        filesystem, path = pyarrow.fs.FileSystem.from_uri(address)
    except pa.ArrowInvalid as error:
        raise OSError(str(error)) from None
    return Location(address, filesystem, path.rstrip("/"))


def is_full(error: BaseException | None) -> bool:
    """Whether an error says, at its root, that a disk or a quota is full; torch and safetensors say it in words."""
    while error is not None:
        words = ("No space left on device", "Disk quota exceeded")
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or any(word in str(error) for word in words):
            return True
        error = error.__cause__ or error.__context__
    return False


def _stat_or_none(info: pyarrow.fs.FileInfo) -> Stat | None:
    return None if info.type == pyarrow.fs.FileType.NotFound else _stat(info)


def _stat(info: pyarrow.fs.FileInfo) -> Stat:
    return Stat(info.type == pyarrow.fs.FileType.Directory, info.size if info.is_file else None, info.mtime_ns)
