"""What every tracker can be told, and what it remembers of a job that goes on."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, Literal, Protocol

from raylora.cluster.storage.run_folder import TRACKERS, RunFolder

Outcome = Literal["finished", "failed", "interrupted"]
JOB = ""  # the name of the job's own run; that of a child is its trial's


@dataclass(frozen=True)
class Points:
    """Numbers of one moment. `at_s`: seconds since 1970."""

    values: Mapping[str, float]
    step: int
    at_s: float


class Tracker(Protocol):
    """One job at one tracker: a run, and of a sweep a child of it for each trial.

    Whatever a method raises ends the tracking, never the job.
    """

    takes_files: bool

    def begin(self, run: str, params: Mapping[str, Any]) -> None:
        """Begin a run, or go on with the one that an interrupted job began."""
        ...

    def add(self, run: str, points: Points) -> None: ...

    def flush(self) -> None:
        """Let what was added be seen."""
        ...

    def files(self, folder: Path) -> None:
        """Keep what lies in a folder as the job's artifacts."""
        ...

    def end(self, run: str, outcome: Outcome, reason: str | None) -> None:
        """`reason`: why it failed."""
        ...


class Ids:
    """The ids that trackers gave to a job's runs, by tracker and run: trackers.json in its folder."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder, self.lock = folder, Lock()
        self.ids: dict[str, dict[str, str]] = json.loads(folder.read_text(TRACKERS)) if folder.has(TRACKERS) else {}

    def get(self, tracker: str, run: str) -> str | None:
        return self.ids.get(tracker, {}).get(run)

    def keep(self, tracker: str, run: str, id: str) -> None:
        with self.lock:
            self.ids.setdefault(tracker, {})[run] = id
            self.folder.write_json(TRACKERS, self.ids)
