"""Which files an address stands for: a file, a folder, a glob or a URI. Knows no ray."""

import glob
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from raylora.cluster.data.content import LOOKED_AT, WORKBOOKS, check_unpacked
from raylora.cluster.data.rows import Split
from raylora.cluster.storage.filesystem import base_name, is_remote, locate, parts, plain
from raylora.errors import DataError

EXTENSIONS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".parquet": "parquet",
}
MAGIC = re.compile(r"[*?\[]")
COMPRESSED = (".gz", ".bz2", ".xz", ".zst", ".lz4", ".zip", ".7z")
SHOWN = 5
# as `datasets.load_dataset` knows a folder's files
SPLIT_WORDS: dict[Split, tuple[str, ...]] = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}


@dataclass(frozen=True)
class Found:
    """A file of data. `path` is absolute or a URI; `size` in bytes, None where only the hub knows it."""

    path: str
    size: int | None


def find_files(where: str | Sequence[str], chosen: str = "auto", split: Split = "train") -> list[Found]:
    """The files of data that addresses stand for, in a fixed order; of a folder with files named for several splits
    (`train.csv`, `test.csv`) those of `split`.

    In a folder, and of what a glob finds, these are no data: names that begin with `.` or `_`, endings that tell no
    format (where `chosen`, of `data.format`, does not tell it either), and a JSON object beside files of rows.

    Raises:
        DataError: nothing is there, or nothing that could be data.
    """
    return [file for pattern in _patterns(where) for file in _of_split(pattern, _find(pattern, chosen), split)]


def splits_there(where: str | Sequence[str], chosen: str = "auto") -> dict[Split, list[str]]:
    """Of the folders among these addresses whose files are named for several splits: each split's files."""
    found: dict[Split, list[str]] = {}
    for pattern in filter(_is_folder, _patterns(where)):
        named = _by_split(_find(pattern, chosen))
        for split, files in named.items() if len(named) > 1 else ():
            found.setdefault(split, []).extend(file.path for file in files)
    return found


def _patterns(where: str | Sequence[str]) -> Sequence[str]:
    return [where] if isinstance(where, str) else where


def _is_folder(pattern: str) -> bool:
    if pattern.startswith("hf://"):
        return False
    if is_remote(pattern):
        return os.path.splitext(parts(pattern)[0])[1].lower() not in EXTENSIONS
    return os.path.isdir(plain(pattern))


def _of_split(pattern: str, files: list[Found], split: Split) -> list[Found]:
    """Raises:
    DataError: a folder with files of the other splits alone.
    """
    named = _by_split(files) if _is_folder(pattern) else {}
    if len(named) < 2:
        return files
    if split not in named:
        shown = _few([base_name(file.path) for file in files])
        raise DataError(f"folder {pattern} holds files of {' and '.join(named)}, none of {split}: {shown}.")
    return named[split]


def _by_split(files: Sequence[Found]) -> dict[Split, list[Found]]:
    """Those whose names hold one split's word."""
    found: dict[Split, list[Found]] = {}
    for file in files:
        words = set(re.split("[^a-z]+", base_name(file.path).lower()))
        meant: list[Split] = [split for split, known in SPLIT_WORDS.items() if words & set(known)]
        if len(meant) == 1:
            found.setdefault(meant[0], []).append(file)
    return found


def decide_format(path: str, chosen: str) -> str:
    """The format of a file: as chosen, or by its ending.

    Raises:
        DataError: the ending tells nothing, or the content is of no known format.
    """
    if chosen != "auto" or path.startswith("hf://"):
        return chosen
    ending = _ending(path)
    if ending in WORKBOOKS:
        raise DataError(f"{path} is an Excel workbook. Save the sheet as csv in UTF-8.")
    if ending not in EXTENSIONS:
        check_unpacked(path, _head(path))
        known = "csv, tsv, jsonl, json or parquet"
        raise DataError(f"{path}: the ending '{ending}' tells no format. Set `data.format` to {known}.")
    return EXTENSIONS[ending]


def _find(pattern: str, chosen: str) -> list[Found]:
    if pattern.startswith("hf://"):
        return [Found(pattern, None)]
    if is_remote(pattern):
        return _remote(pattern, chosen)
    path = Path(plain(pattern))  # relative still: what a glob finds must not hang on the working directory's name
    if path.is_file():
        return _local([path])
    if path.is_dir():
        held = sorted(path.iterdir())
        files = _data_of(_local([p for p in held if p.is_file() and _is_shown(p.name)]), chosen)
        if not files:
            raise _no_data(pattern, held)
        return files
    files = _local(list(_globbed(path)))
    if not files:
        raise DataError(f"{pattern} is not there (looked in {Path.cwd()}). Check `data.train`, `.validation`, `.test`.")
    if chosen != "auto":
        return files
    return _data_of(files, chosen) or files  # of an ending that tells nothing: said by `decide_format`


def _globbed(pattern: Path) -> Iterator[Path]:
    """Files that a glob finds, and those in folders with a data file's name (a table's parts)."""
    fixed = next((i for i, part in enumerate(pattern.parts) if MAGIC.search(part)), 0)
    asked = tuple(part[0] for part in pattern.parts[fixed:])
    for name in sorted(glob.glob(str(pattern), recursive=True)):
        path = Path(name)
        if not all(_is_shown(part) or part.startswith(asked) for part in path.parts[fixed:]):
            continue
        if path.is_file():
            yield path
        elif path.suffix.lower() in EXTENSIONS:
            yield from sorted(p for p in path.iterdir() if p.is_file() and _is_shown(p.name))


def _local(paths: Sequence[Path]) -> list[Found]:
    absolute = dict.fromkeys(os.path.abspath(path) for path in paths)
    return [Found(path, os.path.getsize(path)) for path in absolute]


def _remote(uri: str, chosen: str) -> list[Found]:
    if "*" in parts(uri)[0]:
        raise DataError(f"{uri}: globs are for local files. Name the folder, or a list of files.")
    try:
        place = locate(uri)
        stat = place.stat()
        if stat and not stat.is_folder:
            return [Found(place.address, stat.size)]
        listed = sorted(place.files().items())
        shown = [Found(place.inside(name).address, s.size) for name, s in listed if not s.is_folder and _is_shown(name)]
        files = _data_of(shown, chosen)
    except OSError as error:
        raise DataError(f"{uri} cannot be reached: {error}") from None
    if not files:
        raise DataError(f"{uri} is not there, or a folder without a data file ({' '.join(EXTENSIONS)}).")
    return files


def _data_of(files: Sequence[Found], chosen: str) -> list[Found]:
    """Without the side files of other tools."""
    known = [file for file in files if _ending(file.path) in EXTENSIONS]
    if chosen != "auto":
        return known or list(files)
    return [file for file in known if not _is_json_object(file)] or known


def _is_json_object(file: Found) -> bool:
    """As `dataset_info.json` beside a dataset: one object is no rows. Objects one after another are, misnamed."""
    if _ending(file.path) != ".json" or not file.size:
        return False
    with locate(file.path).open() as stream:
        if not stream.read(64).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{"):
            return False
        stream.seek(0)
        try:
            json.loads(stream.read())
        except (ValueError, RecursionError):
            return False
    return True


def _is_shown(name: str) -> bool:
    """What begins with . or _ is hidden, or left there by Spark, Hadoop, Delta, macOS and others for themselves."""
    return not name.startswith((".", "_"))


def _head(path: str) -> bytes:
    try:
        with locate(path).open() as stream:
            return stream.read(LOOKED_AT)
    except OSError:
        return b""


def _ending(path: str) -> str:
    return os.path.splitext(parts(path)[0])[1].lower()


def _no_data(pattern: str, held: Sequence[Path]) -> DataError:
    shown = [path for path in held if _is_shown(path.name)]
    files, folders = [p.name for p in shown if p.is_file()], [p.name for p in shown if p.is_dir()]
    message = f"folder {pattern} holds no data file; known endings: {' '.join(EXTENSIONS)}."
    if files and all(name.lower().endswith(COMPRESSED) for name in files):
        message += f" Files there: {_few(files)}. Compressed files are not read: unpack them."
    elif files:
        message += f" Files there: {_few(files)}. If they are all of one format, set `data.format`."
    if folders:
        message += (
            f" Folders there: {_few(folders)}. Name one of them, or all their files by {pattern.rstrip('/')}/**/*."
        )
    return DataError(message)


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
