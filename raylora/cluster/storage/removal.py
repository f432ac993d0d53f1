"""Removes runs, and trials of sweeps; never of a job that is at work."""

import csv
import io
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from raylora.cluster.storage.filesystem import Location
from raylora.cluster.storage.listing import Summary, list_runs, size_of
from raylora.cluster.storage.lock import hold
from raylora.cluster.storage.run_folder import LOCK, TRIAL_RUNS, TRIALS, TRIALS_TABLE, RunFolder
from raylora.config import Job
from raylora.config.explain import close_to
from raylora.errors import ConfigError


@dataclass(frozen=True)
class Removal:
    """What is to go: a run's whole folder, or the folders of some of its trials. `why` says what it was chosen by."""

    folder: RunFolder
    size_bytes: int
    why: str
    trials: tuple[str, ...] = ()

    @property
    def what(self) -> str:
        trials = f"{len(self.trials)} trial{'s' * (len(self.trials) != 1)} of " if self.trials else ""
        return f"{trials}{self.folder.uri}"


def named(storage_path: str, names: Sequence[str]) -> list[Removal]:
    """Raises:
    ConfigError: one of the names is no run's, or is an endpoint's; nothing is removed then.
    """
    found = {each.name: each for each in list_runs(storage_path)}
    for name in names:
        if name not in found:
            raise ConfigError(f"{storage_path} holds no run '{name}'{close_to(name, list(found))}")
        if found[name].kind == "endpoint":
            raise ConfigError(
                f"{name} is an endpoint's folder, which does not tell whether it runs. Stop the endpoint, then remove "
                f"{found[name].uri} yourself."
            )
    return [_whole(storage_path, found[name], "named") for name in dict.fromkeys(names)]


def older_than(storage_path: str, seconds: float) -> list[Removal]:
    """Runs and sweeps that were last written before that long, the oldest first; endpoints stay."""
    limit = time.time() - seconds
    old = [each for each in list_runs(storage_path) if each.written < limit and each.kind != "endpoint"]
    return [_whole(storage_path, each, "old") for each in sorted(old, key=lambda each: each.written)]


def beyond(storage_path: str, keep: int) -> list[Removal]:
    """Of every finished sweep, the folders of the trials that rank behind the best so many; its adapter, trials.csv and
    all else stay."""
    sweeps = [each for each in list_runs(storage_path) if each.kind == "sweep" and each.state == "finished"]
    found = [_trials(_folder(storage_path, each.name), keep) for each in sweeps]
    return [each for each in found if each.trials]


def remove(removal: Removal) -> None:
    """Holding the run's lock, so that no job begins in it meanwhile.

    Raises:
        ConfigError: a job is at work there, or storage cannot be written to.
    """
    folder = removal.folder
    with hold(folder, lambda line: None), folder.named("removed from"):
        for place in _places(folder, removal.trials) if removal.trials else [folder.location]:
            place.delete()


def is_locked(removal: Removal) -> bool:
    """Whether a job is at work there, or was when it was killed."""
    return removal.folder.has(LOCK)


def _whole(storage_path: str, summary: Summary, why: str) -> Removal:
    return Removal(_folder(storage_path, summary.name), summary.size_bytes, why)


def _folder(storage_path: str, name: str) -> RunFolder:
    return RunFolder(Job().replace({"storage_path": storage_path, "run_name": name}))


def _trials(folder: RunFolder, keep: int) -> Removal:
    table = csv.DictReader(io.StringIO(folder.read_text(TRIALS_TABLE))) if folder.has(TRIALS_TABLE) else ()
    ranked = [row["trial"] for row in sorted(table, key=lambda row: int(row["rank"]))]
    left = tuple(name for name in ranked[keep:] if any(True for _ in _places(folder, [name])))
    size = sum(size_of(place) for place in _places(folder, left))
    return Removal(folder, size, "rank", left)


def _places(folder: RunFolder, trials: Sequence[str]) -> Iterator[Location]:
    """Ray Tune's folder of each trial, and its run's where it had several workers."""
    for trial in trials:
        for above in (TRIALS, TRIAL_RUNS):
            place = folder.location.inside(above).inside(trial)
            if place.files():
                yield place
