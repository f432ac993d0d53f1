"""The folder of a scored table: what lies in it, and whose it is.

    part-00012-reviews-0003.parquet    rows of one part of a file, written whole
    _SUCCESS                           a summary; written last
    _raylora/predict.json              the plan (`plan.Plan`), written first
    _raylora/done/part-....json        a mark for each part that is there, with its counts
    _raylora/bad_rows.jsonl            rows that were left out, with `data.on_bad_row: skip`
    _raylora/lock.json                 which job works here now (`storage.lock`)

What begins with `_` or `.` is no data to whoever reads a folder of parquet, csv or jsonl.
"""

import json
import shutil
import uuid
from collections.abc import Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import IO, Any

from raylora.cluster.storage.filesystem import is_full, locate
from raylora.errors import ConfigError, FullDiskError

OWN = "_raylora"
PLAN = "predict.json"
BAD_ROWS = "bad_rows.jsonl"
DONE = "done"
SUCCESS = "_SUCCESS"

READERS = 16  # marks that are read at once: each is a request on object storage


class Output:
    """The folder of `predict.output`; what fails in it is a ConfigError that names that."""

    key = place_key = "predict.output"

    def __init__(self, address: str) -> None:
        with _named(address, "used"):
            self.root = locate(address)
        self.address = self.root.address
        self.location = self.root.inside(OWN)
        self.path = self.location.path

    def named(self, what: str) -> AbstractContextManager[None]:
        """What fails in storage meanwhile is a ConfigError: the folder cannot be ... `what`."""
        return _named(self.address, what)

    def check_ours(self) -> None:
        """Raises:
        ConfigError: the folder holds something else than a scored table.
        """
        with self.named("read"):
            stat = self.root.stat()
            if stat and not stat.is_folder:
                raise ConfigError(f"`predict.output` {self.address} is a file. Name a folder.")
            names, begun = set(self.root.files()), self.location.inside(PLAN).exists()
        if (others := sorted(names - {OWN})) and not begun:
            raise ConfigError(
                f"`predict.output` {self.address} holds something else ({others[0]}), which is left as it is. Name a "
                "folder of its own."
            )

    def has(self, name: str) -> bool:
        """A file of `_raylora`."""
        with self.named("read"):
            return self.location.inside(name).exists()

    def read_text(self, name: str) -> str:
        with self.named("read"):
            return self.location.inside(name).read_text()

    def write_text(self, name: str, text: str) -> None:
        with self.named("written to"):
            self.location.inside(name).write_text(text)

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Nothing but whole parts is left beside it."""
        with self.named("written to"):
            for name in [name for name in self.root.files() if name.startswith(".part-")]:
                self.root.inside(name).delete()
            self.root.inside(SUCCESS).write_text(json.dumps(summary, indent=2, ensure_ascii=False) + "\n")

    def summary(self) -> dict[str, Any] | None:
        """Of a finished table; None of one that is not."""
        with self.named("read"):
            place = self.root.inside(SUCCESS)
            return json.loads(place.read_text()) if place.exists() else None

    def put(self, name: str, content: IO[bytes], mark: Mapping[str, Any]) -> None:
        """A part, then its mark: where the mark is, the part is whole."""
        with self.named("written to"):
            self._put_whole(name, content)
            self.location.inside(DONE).inside(f"{name}.json").write_text(json.dumps(mark))

    def _put_whole(self, name: str, content: IO[bytes]) -> None:
        """Under a name of this writer's own first: two may write the same part. Object storage shows no half of it."""
        target = self.root.inside(name)
        part = self.root.inside(f".{name}.{uuid.uuid4().hex}") if self.root.is_local else target
        content.seek(0)
        try:
            with self.root.filesystem.open_output_stream(part.path, compression=None) as file:
                shutil.copyfileobj(content, file, 2**20)
            if part is not target:
                self.root.filesystem.move(part.path, target.path)
        except OSError:
            with suppress(OSError):
                part.delete()
            raise

    def done(self) -> set[str]:
        """Names of parts that are there."""
        with self.named("read"):
            marks = self.location.inside(DONE).files()
            return {name for name in self.root.files() if f"{name}.json" in marks}

    def marks(self, names: list[str]) -> list[dict[str, Any]]:
        """Of parts that are there."""
        with self.named("read"), ThreadPoolExecutor(READERS) as readers:
            return list(readers.map(self._mark, names))

    def _mark(self, name: str) -> dict[str, Any]:
        return json.loads(self.location.inside(DONE).inside(f"{name}.json").read_text())


@contextmanager
def _named(address: str, what: str) -> Generator[None]:
    try:
        yield
    except OSError as error:
        if is_full(error):
            raise FullDiskError(
                f"`predict.output` {address} is full: {error}. Make room there, then run the same command: parts that "
                "are written are kept."
            ) from None
        raise ConfigError(f"`predict.output` {address} cannot be {what}: {error}") from None
