"""Which files an address stands for: a file, a folder, a glob, a URI or a web address. Knows no ray."""

import os
from collections.abc import Sequence
from pathlib import Path

from raylora.cluster.data import web
from raylora.cluster.data.endings import EXTENSIONS, ending_of
from raylora.cluster.data.folders import WEAK, Divided, Found, by_class, by_split, data_of, files_of
from raylora.cluster.data.globs import is_remote_pattern, local_files, remote_files
from raylora.cluster.data.rows import Split
from raylora.cluster.storage.filesystem import is_remote, locate, plain
from raylora.errors import DataError


def find_files(where: str | Sequence[str], chosen: str = "auto", split: Split = "train") -> list[Found]:
    """The files of data that addresses stand for, in a fixed order; of a folder with files or folders named for several
    splits (`train.csv`, `test.csv`) those of `split`.

    In a folder, and of what a glob finds, these are no data: names that begin with `.` or `_`, endings that tell no
    format (where `chosen`, of `data.format`, does not tell it either), txt and zip beside other formats, and a JSON
    object that is no rows.

    Raises:
        DataError: nothing is there, or nothing that could be data.
    """
    return [file for pattern in _patterns(where) for file in _find(pattern, chosen, split)]


def splits_there(where: str | Sequence[str], chosen: str = "auto") -> Divided:
    """Of the folders among these addresses that tell splits apart."""
    found = [by_split(locate(pattern), chosen) for pattern in filter(_is_folder, _patterns(where))]
    files: dict[Split, list[Found]] = {}
    for each in found:
        for split, there in each.splits.items():
            files.setdefault(split, []).extend(there)
    return Divided(files, [path for each in found for path in each.aside])


def _patterns(where: str | Sequence[str]) -> Sequence[str]:
    return [where] if isinstance(where, str) else where


def _is_folder(pattern: str) -> bool:
    if pattern.startswith("hf://") or web.is_web(pattern):
        return False
    if is_remote(pattern):
        return not is_remote_pattern(pattern) and ending_of(pattern) not in EXTENSIONS and _is_remote_folder(pattern)
    return os.path.isdir(plain(pattern))


def _is_remote_folder(uri: str) -> bool:
    """Raises:
    DataError: the storage cannot be reached.
    """
    try:
        stat = locate(uri).stat()
    except OSError as error:
        raise DataError(f"{uri} cannot be reached: {error}") from None
    return stat is not None and stat.is_folder


def _find(pattern: str, chosen: str, split: Split) -> list[Found]:
    if pattern.startswith("hf://"):
        return [Found(pattern, None)]
    if web.is_web(pattern):
        return [Found(pattern, web.size_of(pattern))]
    try:
        return _remote(pattern, chosen, split) if is_remote(pattern) else _local(pattern, chosen, split)
    except OSError as error:
        raise DataError(f"{pattern} cannot be reached: {error}") from None


def _local(pattern: str, chosen: str, split: Split) -> list[Found]:
    path = Path(plain(pattern))  # relative still: what a glob finds must not hang on the working directory's name
    if path.is_dir():
        return files_of(locate(pattern), chosen, split)
    paths = [path] if path.is_file() else list(local_files(path))
    if not paths:
        raise DataError(f"{pattern} is not there (looked in {Path.cwd()}). Check `data.train`, `.validation`, `.test`.")
    absolute = dict.fromkeys(os.path.abspath(each) for each in paths)
    return _of_pattern([Found(each, os.path.getsize(each)) for each in absolute], chosen)


def _remote(uri: str, chosen: str, split: Split) -> list[Found]:
    if is_remote_pattern(uri):
        found = [Found(address, stat.size) for address, stat in remote_files(uri).items()]
        if not found:
            raise DataError(f"{uri} is not there: no file matches it.")
        return _of_pattern(found, chosen)
    place = locate(uri)
    stat = place.stat()
    if stat and not stat.is_folder:
        return _of_pattern([Found(place.address, stat.size)], chosen)
    if not stat:
        raise DataError(f"{uri} is not there, or a folder without a data file ({' '.join(EXTENSIONS)}).")
    return files_of(place, chosen, split)


def _of_pattern(files: list[Found], chosen: str) -> list[Found]:
    if chosen == "text":
        return by_class(files)
    if chosen != "auto" or len(files) == 1:
        return files
    return data_of(files, chosen, WEAK) or files  # of an ending that tells nothing: said by `decide_format`
