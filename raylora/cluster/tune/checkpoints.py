"""A trial's checkpoint as bytes: how it crosses from the worker that made it to the trainable, and back."""

import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

Files = dict[str, bytes]


def read_files(folder: str | Path) -> Files:
    """Every file of a folder by its relative name."""
    folder = Path(folder)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@contextmanager
def as_folder(files: Files) -> Generator[Path]:
    """The files in a folder that lasts as long as the `with`."""
    with tempfile.TemporaryDirectory(prefix="raylora-") as scratch:
        for name, content in files.items():
            path = Path(scratch) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        yield Path(scratch)
