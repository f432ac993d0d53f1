"""Where adapters may lie: folders here or on object storage, and what may be loaded from them."""

import os
import shlex
import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from raylora.cluster.storage.filesystem import Location, inside, is_remote, locate, parts, plain, quoted
from raylora.cluster.storage.run_folder import ADAPTER, CONFIG
from raylora.errors import ConfigError, ModelError
from raylora.model.lora.manifest import MANIFEST
from raylora.model.serving.adapter import WEIGHTS


def absolute(path: str) -> str:
    """A local path with links followed; an address in its one spelling.

    Raises:
        ConfigError: an address that steps up by `..`.
    """
    if not is_remote(path):
        return os.path.realpath(plain(path))
    address, mark, options = parts(quoted(path))
    if ".." in unquote(address).replace("\\", "/").split("/"):  # pyarrow takes `%2e` for a dot, too
        raise ConfigError(f"path {path} must not hold `..`.")
    return address.rstrip("/") + mark + options


def check_inside(path: str, roots: Sequence[str]) -> str:
    """The absolute path.

    Raises:
        ConfigError: it is in none of the roots.
    """
    found = absolute(path)
    for root in map(absolute, roots):
        (address, _, options), (above, _, expected) = parts(found), parts(root)
        if f"{address}/".startswith(f"{above.rstrip('/')}/") and options == expected:
            return found
    raise ConfigError(f"path {path} must be inside {' or '.join(roots)}.")


@dataclass(frozen=True)
class AdapterLocation:
    """An adapter's folder as it is now; `state` changes when its weights do."""

    path: str
    state: str


def adapter_in(path: str) -> AdapterLocation | None:
    """The adapter in this folder, or in its `adapter` where it is a run's; None where there is none."""
    for folder in (path, inside(path, ADAPTER)):
        manifest, weights = _locate(folder).stats(MANIFEST, WEIGHTS)
        if manifest and weights and not (manifest.is_folder or weights.is_folder):
            return AdapterLocation(folder, f"{weights.mtime_ns}-{weights.size}-{manifest.mtime_ns}")
    return None


def find(path: str) -> AdapterLocation:
    """Raises:
    ModelError: there is no adapter.
    """
    return there(path, adapter_in(path))


def there(path: str, found: AdapterLocation | None) -> AdapterLocation:
    """Raises:
    ModelError: nothing was found.
    """
    if found is None:
        raise ModelError(_why_none(path))
    return found


def is_run(path: str) -> bool:
    """Whether this is the folder of a run, finished or not."""
    return _locate(path).stats(CONFIG)[0] is not None


def _why_none(path: str) -> str:
    place = _locate(path)
    if place.stat() is None and not place.files():
        return f"adapter {path} is not there. It is the folder of a finished run, or `adapter` inside it."
    if is_run(path):
        show = shlex.join(["raylora", "runs", "show", place.name, place.parent.address])
        return f"{path} is a run that has not finished: it holds no adapter yet. How it goes on: {show}"
    return f"{path} holds no adapter saved by raylora: {MANIFEST} or {WEIGHTS} is missing."


def adapter_inside(path: str, roots: Sequence[str]) -> AdapterLocation | None:
    """`adapter_in` for a path that came from outside: folder, files and whatever links stand for them lie in a root.

    Raises:
        ConfigError: one of them does not.
    """
    place = adapter_in(check_inside(path, roots))
    if place and not is_remote(place.path):
        for file in (Path(place.path), *Path(place.path).iterdir()):
            check_inside(str(file), roots)
    return place


@contextmanager
def local(place: AdapterLocation) -> Generator[Path]:
    """Its files, here, as long as the block runs."""
    folder = _locate(place.path)
    if folder.is_local:
        yield Path(folder.path)
        return
    with tempfile.TemporaryDirectory(prefix="raylora-adapter-") as copy:
        folder.copy_to(copy)
        yield Path(copy)


@contextmanager
def opened(path: str) -> Generator[Path]:
    """The files of the adapter in a folder, or of a run, here, as long as the block runs.

    Raises:
        ModelError: it cannot be read, or there is none; of a local folder the reader of the files says what is missing.
    """
    address = plain(path)
    try:
        place = adapter_in(address)
        if place is None and not is_remote(address) and not is_run(address):
            place = AdapterLocation(address, "")
        with local(there(address, place)) as folder:
            yield folder
    except OSError as error:
        raise ModelError(f"adapter {address} cannot be read: {error}") from None


def names(root: str) -> list[str]:
    """Folders in a root, sorted."""
    return sorted(name for name, stat in _locate(root).files().items() if stat.is_folder)


def _locate(path: str) -> Location:
    try:
        return locate(absolute(path))
    except OSError as error:
        raise ConfigError(f"path {path} cannot be used: {error}") from None
