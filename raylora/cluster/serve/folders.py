"""Where adapters may lie: folders here or on object storage, and what may be loaded from them."""

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.fs

from raylora.errors import ConfigError, ModelError
from raylora.model.adapter import CARD
from raylora.model.serving.adapter import WEIGHTS


def is_remote(path: str) -> bool:
    return "://" in path


def absolute(path: str) -> str:
    """A local path with links followed; an address as it is.

    Raises:
        ConfigError: an address that steps up by `..`.
    """
    if not is_remote(path):
        return os.path.realpath(Path(path).expanduser())
    if ".." in path.split("/"):
        raise ConfigError(f"path {path} must not hold `..`.")
    return path.rstrip("/")


def check_inside(path: str, roots: Sequence[str]) -> str:
    """The absolute path.

    Raises:
        ConfigError: it is in none of the roots.
    """
    found = absolute(path)
    for root in map(absolute, roots):
        if found == root or found.startswith(root.rstrip("/") + "/"):
            return found
    raise ConfigError(f"path {path} must be inside {' or '.join(roots)}.")


@dataclass(frozen=True)
class Place:
    """An adapter's folder as it is now; `state` changes when its weights do."""

    path: str
    state: str


class Folders:
    """Reads adapters' folders, remote ones through a local copy."""

    def __init__(self) -> None:
        self.scratch = tempfile.TemporaryDirectory(prefix="raylora-adapters-")

    def place(self, path: str) -> Place | None:
        """The adapter in this folder, or in its `adapter` where it is a run's; None where there is none."""
        filesystem, inside = _open(path)
        for below in ("", "/adapter"):
            names = (f"{inside}{below}/{CARD}", f"{inside}{below}/{WEIGHTS}")
            card, weights = filesystem.get_file_info(list(names))
            if card.is_file and weights.is_file:
                return Place(path.rstrip("/") + below, f"{weights.mtime_ns}-{weights.size}-{card.mtime_ns}")
        return None

    def find(self, path: str) -> Place:
        """Raises:
        ModelError: there is no adapter.
        """
        found = self.place(path)
        if found is None:
            raise ModelError(f"{path} holds no adapter saved by raylora: {CARD} or {WEIGHTS} is missing.")
        return found

    def local(self, place: Place) -> Path:
        """Its files, here."""
        if not is_remote(place.path):
            return Path(place.path)
        filesystem, inside = _open(place.path)
        target = Path(tempfile.mkdtemp(dir=self.scratch.name))
        pyarrow.fs.copy_files(inside, str(target), source_filesystem=filesystem)
        return target

    def names(self, root: str) -> list[str]:
        """Folders in a root, sorted."""
        filesystem, inside = _open(root)
        found = filesystem.get_file_info(pyarrow.fs.FileSelector(inside, allow_not_found=True))
        return sorted(info.base_name for info in found if info.type == pyarrow.fs.FileType.Directory)


def _open(path: str) -> tuple[pyarrow.fs.FileSystem, str]:
    try:
        filesystem, inside = pyarrow.fs.FileSystem.from_uri(absolute(path))
    except (pa.ArrowInvalid, OSError) as error:
        raise ConfigError(f"path {path} cannot be used: {error}") from None
    return filesystem, inside.rstrip("/")
