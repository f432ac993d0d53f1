"""Where an export is written: beside its place, which it takes only when it is whole."""

import contextlib
import os
import secrets
import shutil
from collections.abc import Generator
from pathlib import Path

from raylora.cluster.storage.filesystem import is_full, is_remote, plain
from raylora.errors import ConfigError, FullDiskError
from raylora.model.export.facts import MARK


def check_output(address: str) -> Path:
    """The folder, links followed.

    Raises:
        ConfigError: it is on object storage, or something is there that is not an earlier export.
    """
    if is_remote(plain(address)):
        raise ConfigError(f"--output must be a local folder, found {address}.")
    folder = Path(os.path.realpath(plain(address)))
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"--output {folder} is a file. Name a folder.")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MARK).is_file():
        raise ConfigError(
            f"--output {folder} holds other files than an export of raylora's, which are not touched. Name another one."
        )
    return folder


@contextlib.contextmanager
def written(folder: Path, needed_bytes: int) -> Generator[Path]:
    """A new folder, which becomes `folder` when the block ends well and is gone when it does not.

    Args:
        folder: of `check_output`; an earlier export there stays until then.

    Raises:
        FullDiskError: there is no room for so many bytes, or none was left on the way.
        ConfigError: nothing can be written there.
    """
    part = folder.with_name(f".{folder.name}.part-{secrets.token_hex(4)}")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _check_room(folder, needed_bytes)
        part.mkdir()
        yield part
        _take_place(part, folder)
    except OSError as error:
        raise _in_words(folder, error) from None
    except Exception as error:
        if is_full(error):  # safetensors and ONNX have errors of their own
            raise _in_words(folder, error) from None
        raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _check_room(folder: Path, needed_bytes: int) -> None:
    free = shutil.disk_usage(folder.parent).free
    if free < needed_bytes:
        raise FullDiskError(
            f"--output {folder}: its disk has room for {free / 1e6:.0f} MB, and the export needs about "
            f"{needed_bytes / 1e6:.0f} MB. Make room there, or name another folder."
        )


def _take_place(part: Path, folder: Path) -> None:
    old = folder.with_name(f".{folder.name}.old-{secrets.token_hex(4)}")
    if folder.exists():
        folder.rename(old)
    try:
        part.rename(folder)
    except OSError:
        if old.exists():
            old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _in_words(folder: Path, error: Exception) -> ConfigError:
    if is_full(error):
        return FullDiskError(f"--output {folder}: its disk is full. Nothing was written; make room there.")
    return ConfigError(f"--output {folder} cannot be written to: {error}")
