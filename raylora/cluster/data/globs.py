"""Patterns (`*`, and `**` for any folders) of local files and of those on object storage."""

import glob
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote

from raylora.cluster.data.endings import EXTENSIONS, ending_of
from raylora.cluster.storage.filesystem import Stat, locate, parts
from raylora.errors import DataError

MAGIC = re.compile(r"[*?\[]")


def is_shown(name: str) -> bool:
    """What begins with . or _ is hidden, or left there by Spark, Hadoop, Delta, macOS and others for themselves."""
    return not name.startswith((".", "_"))


def local_files(pattern: Path) -> Iterator[Path]:
    """Files that a glob finds, and those in folders with a data file's name (a table's parts)."""
    fixed = next((i for i, part in enumerate(pattern.parts) if MAGIC.search(part)), 0)
    for name in sorted(glob.glob(str(pattern), recursive=True)):
        path = Path(name)
        if not _all_shown(path.parts[fixed:], pattern.parts[fixed:]):
            continue
        if path.is_file():
            yield path
        elif ending_of(path.name) in EXTENSIONS:
            yield from sorted(p for p in path.iterdir() if p.is_file() and is_shown(p.name))


def is_remote_pattern(uri: str) -> bool:
    """A `?` begins a URI's options, and brackets stand in names: `*` alone is a pattern."""
    return "*" in parts(uri)[0]


def remote_files(uri: str) -> dict[str, Stat]:
    """As `local_files`, by address.

    Raises:
        OSError: the storage cannot be reached.
        DataError: the pattern begins before any folder.
    """
    address, mark, options = parts(uri)
    names = address.split("/")
    fixed = next(i for i, name in enumerate(names) if "*" in name)
    if fixed < 3:
        raise DataError(f"{uri}: `*` stands in a path, not in a bucket's name.")
    place = locate("/".join(names[:fixed]) + mark + options)
    pattern = [unquote(name) for name in names[fixed:]]
    listed = place.files() if len(pattern) == 1 and pattern != ["**"] else {}
    if not listed or any(stat.is_folder and ending_of(name) in EXTENSIONS for name, stat in listed.items()):
        listed = place.walk()
    found = {name: stat for name, stat in sorted(listed.items()) if not stat.is_folder and _is_meant(name, pattern)}
    return {place.inside(name).address: stat for name, stat in found.items()}


def _is_meant(name: str, pattern: Sequence[str]) -> bool:
    folder = name.rpartition("/")[0]
    matched = _matches(name, pattern) or (ending_of(folder) in EXTENSIONS and _matches(folder, pattern))
    return matched and _all_shown(name.split("/"), pattern)


def _matches(name: str, pattern: Sequence[str]) -> bool:
    *folders, last = pattern
    before = "".join("(?:[^/]+/)*" if part == "**" else f"{_segment(part)}/" for part in folders)
    return re.fullmatch(before + (".*" if last == "**" else _segment(last)), name, re.DOTALL) is not None


def _segment(part: str) -> str:
    return "[^/]*".join(map(re.escape, part.split("*")))


def _all_shown(names: Sequence[str], pattern: Sequence[str]) -> bool:
    """Hidden names count where the pattern asks for such."""
    asked = tuple(part[0] for part in pattern if part)
    return all(is_shown(name) or name.startswith(asked) for name in names)
