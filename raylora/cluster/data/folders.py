"""Which files of a folder are data, by its layout: files of rows, a saved dataset, a file or a folder per split, a
folder per class of texts."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from raylora.cluster.data.endings import EXTENSIONS, KNOWN, ending_of
from raylora.cluster.data.globs import is_shown
from raylora.cluster.data.json_text import is_table
from raylora.cluster.data.rows import Split
from raylora.cluster.data.streams import unpacked
from raylora.cluster.data.unpack import UNREAD
from raylora.cluster.storage.filesystem import Location, Stat, base_name
from raylora.errors import DataError

SHOWN = 5
WEAK = (".txt", ".zip")  # of notes as often as of rows: data where nothing else is
TEXTS = (".txt", ".text", ".md", "")  # of a file that is one text
SAVED, SAVED_SPLITS = "state.json", "dataset_dict.json"  # of `datasets`' save_to_disk
# as `datasets.load_dataset` knows a folder's files
SPLIT_WORDS: dict[Split, tuple[str, ...]] = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}


@dataclass(frozen=True)
class Found:
    """A file of data. `path` is absolute or a URI; `size` in bytes, None where only the hub knows it.

    `format` is set where the folder tells it; `members` are the texts of a class's folder.
    """

    path: str
    size: int | None
    format: str | None = None
    members: tuple[str, ...] = ()


@dataclass(frozen=True)
class Divided:
    """Folders that tell splits apart: each split's files; `aside` are the addresses of data that is named for none."""

    splits: dict[Split, list[Found]]
    aside: list[str]


UNDIVIDED = Divided({}, [])


def files_of(folder: Location, chosen: str, split: Split) -> list[Found]:
    """The data of a folder; of one with files or folders named for several splits that of `split`.

    Raises:
        DataError: there is none.
    """
    named = by_split(folder, chosen).splits
    if not named:
        return _undivided(folder, chosen)
    if split not in named:
        shown = few([base_name(file.path) for files in named.values() for file in files])
        raise DataError(f"folder {folder.address} holds files of {' and '.join(named)}, none of {split}: {shown}.")
    return named[split]


def by_split(folder: Location, chosen: str) -> Divided:
    """Each split's files, where they are named so; nothing of a folder that does not tell them apart."""
    held = listing(folder)
    if SAVED_SPLITS in held:
        return _folders_by_split(folder, _saved_splits(folder), chosen, fewest=1)
    if SAVED in held:
        return UNDIVIDED
    files = data_of(_files(folder, held), chosen)
    if files:
        return _files_by_split(files)
    return _folders_by_split(folder, [name for name, stat in held.items() if stat.is_folder], chosen, fewest=2)


def _files_by_split(files: Sequence[Found]) -> Divided:
    named: dict[Split, list[Found]] = {}
    for file in files:
        if split := split_of(base_name(file.path)):
            named.setdefault(split, []).append(file)
    aside = [file.path for file in files if not split_of(base_name(file.path))]
    return Divided(named, aside) if len(named) > 1 else UNDIVIDED


def _folders_by_split(folder: Location, names: Sequence[str], chosen: str, fewest: int) -> Divided:
    shown = sorted(filter(is_shown, names))
    found: dict[Split, list[Found]] = {}
    for name in shown:
        if split := split_of(name):
            found.setdefault(split, []).extend(_data_in(folder.inside(name), chosen))
    named: dict[Split, list[Found]] = {split: files for split, files in found.items() if files}
    if len(named) < fewest:
        return UNDIVIDED
    others = (folder.inside(name) for name in shown if not split_of(name))
    return Divided(named, [other.address for other in others if _data_in(other, chosen)])


def _data_in(folder: Location, chosen: str) -> list[Found]:
    """Nothing of a folder without data."""
    try:
        return _undivided(folder, chosen)
    except DataError:
        return []


def split_of(name: str) -> Split | None:
    """The one split whose word a name holds."""
    words = set(re.split("[^a-z]+", name.lower()))
    meant: list[Split] = [split for split, known in SPLIT_WORDS.items() if words & set(known)]
    return meant[0] if len(meant) == 1 else None


def _undivided(folder: Location, chosen: str) -> list[Found]:
    held = listing(folder)
    if SAVED in held:
        return [Found(folder.inside(name).address, held[name].size, "arrow") for name in _saved(folder, held)]
    files = _files(folder, held)
    classes = _classes(folder, held, chosen) if chosen in ("auto", "text") else []
    found = data_of(files, chosen) or classes or data_of(files, chosen, WEAK)
    if chosen == "text":
        found = classes or by_class(files)
    if not found:
        raise _no_data(folder.address, held)
    return found


def listing(folder: Location) -> dict[str, Stat]:
    """What lies in a folder, by name; of a local one also names that are not UTF-8."""
    if not folder.is_local:
        return dict(sorted(folder.files().items()))
    paths = sorted(Path(folder.path).iterdir())
    return {p.name: Stat(p.is_dir(), p.stat().st_size if p.is_file() else None, None) for p in paths if p.exists()}


def _files(folder: Location, held: Mapping[str, Stat]) -> list[Found]:
    shown = {name: stat for name, stat in held.items() if is_shown(name) and stat.size is not None}
    return [Found(folder.inside(name).address, stat.size) for name, stat in shown.items()]


def _read_json(folder: Location, name: str) -> dict[str, object]:
    try:
        value = json.loads(folder.inside(name).read_text())
        return value if isinstance(value, dict) else {}
    except (ValueError, RecursionError):
        return {}


def _saved_splits(folder: Location) -> list[str]:
    names = _read_json(folder, SAVED_SPLITS).get("splits")
    return [str(name) for name in names] if isinstance(names, list) else []


def _saved(folder: Location, held: Mapping[str, Stat]) -> list[str]:
    """The files of a saved dataset: beside them lie caches of what was made of it, Arrow files too.

    Raises:
        DataError: one is not there, or none is named.
    """
    listed = _read_json(folder, SAVED).get("_data_files")
    named = [each["filename"] for each in listed if "filename" in each] if isinstance(listed, list) else []
    missing = [name for name in named if name not in held]
    if missing or not named:
        what = f"its {SAVED} names {few(missing)}, not there" if missing else f"its {SAVED} names no data file"
        raise DataError(f"folder {folder.address} is not a whole dataset of save_to_disk: {what}.")
    return named


def _classes(folder: Location, held: Mapping[str, Stat], chosen: str) -> list[Found]:
    """The folders of texts in a folder, each a class, where there are two or more and nothing else is data there."""
    found: list[Found] = []
    for name in (name for name, stat in held.items() if stat.is_folder and is_shown(name)):
        inner = _files(folder.inside(name), listing(folder.inside(name)))
        if chosen == "auto" and data_of(inner, chosen):
            return []
        found += by_class([file for file in inner if chosen == "text" or ending_of(file.path) in TEXTS])
    return found if len(found) > 1 else []


def by_class(files: Sequence[Found]) -> list[Found]:
    """Texts, as their folders with the files of each."""
    groups: dict[str, list[Found]] = {}
    for file in files:
        head, mark, options = file.path.partition("?") if "://" in file.path else (file.path, "", "")
        groups.setdefault(head.rpartition("/")[0] + mark + options, []).append(file)
    return [
        Found(path, sum(file.size or 0 for file in held), "text", tuple(base_name(file.path) for file in held))
        for path, held in groups.items()
    ]


def data_of(files: Sequence[Found], chosen: str, weak: Sequence[str] = ()) -> list[Found]:
    """Without the side files of other tools.

    Args:
        weak: endings that count, too.
    """
    known = [file for file in files if ending_of(file.path) in EXTENSIONS and ending_of(file.path) not in WEAK]
    if chosen != "auto":
        return known or list(files)
    return (
        [file for file in known if not _is_side_file(file)]
        or known
        or [file for file in files if ending_of(file.path) in weak]
    )


def _is_side_file(file: Found) -> bool:
    """As `dataset_info.json` beside a dataset: an object that is no rows. Objects one after another are."""
    if ending_of(file.path) != ".json" or not file.size:
        return False
    try:
        with unpacked(file.path) as stream:
            if not stream.read(64).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{"):
                return False
            stream.seek(0)
            return not is_table(json.loads(stream.read().removeprefix(b"\xef\xbb\xbf")))
    except (ValueError, RecursionError, DataError):
        return False


def _no_data(address: str, held: Mapping[str, Stat]) -> DataError:
    shown = {name: stat for name, stat in held.items() if is_shown(name)}
    files = [name for name, stat in shown.items() if not stat.is_folder]
    folders = [name for name, stat in shown.items() if stat.is_folder]
    message = f"folder {address} holds no data file; known endings: {' '.join(EXTENSIONS)}, and .gz .bz2 .zst .zip."
    if files and all(name.lower().endswith(UNREAD) for name in files):
        message += f" Files there: {few(files)}. They are not read as they are: unpack them."
    elif files:
        message += f" Files there: {few(files)}. If they are all of one format, set `data.format` to {KNOWN}."
    if folders:
        inside = f"{address.rstrip('/')}/**/*"
        message += f" Folders there: {few(folders)}. Name one of them, or all their files by {inside}."
    return DataError(message)


def few(names: Sequence[str]) -> str:
    """The first five, and how many more there are."""
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
