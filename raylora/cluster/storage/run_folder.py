"""The folder of a job, `<storage_path>/<run_name>`, local or on object storage: what lies in it, and what that tells.

    config.yaml         the resolved job, written once its data is read: it reproduces the run
    data.json           what that data is: files, rows of each label, a fingerprint of them all
    data/               rows that a program passed to `raylora.train`, a jsonl file a split (`cluster.data.frames`)
    data_report.json    what `raylora inspect` says of that data
    lock.json           which job works here now, with files beside it whose names begin so (`storage.lock`)
    history.jsonl       an event a line, as they come (`events.stream`)
    bad_rows.jsonl      rows that were left out, with `data.on_bad_row: skip`
    checkpoint_*/       Ray Train's
    adapter/            the best epoch's: all that serving needs
    metrics.json        final figures; its presence says that the job has finished
    report.html         the page of all that (`cluster.report`)
    evaluation/         of `raylora evaluate RUN --output RUN/evaluation`, which report.html then shows
    review.csv          rows whose labels may be wrong, where `raylora inspect` was asked for them
    tensorboard/        event files, with `train.report_to: [tensorboard]`
    wandb/              files of Weights & Biases, with `train.report_to: [wandb]`
    trackers.json       the ids that trackers gave to the job's runs, by which it goes on with them

A sweep's folder holds, beside config.yaml, the three files of its data, history.jsonl, adapter/ and metrics.json:

    trials/             Ray Tune's: its state, its scheduler's, and each trial's checkpoints
    train/              a run folder per trial, where each trial has several workers
    trials.csv          all trials, best first
    best_config.yaml    the winner's job, to be trained again

An endpoint's folder holds its table of adapters:

    adapters.json             what each name stands for
    adapters.changes/         changes since that was written, and some before (adapters.changes.jsonl in earlier code)
    serving.json              which base it serves, decided at its start
    versions/                 the files of the config's adapters as they were taken, by their digest
"""

import json
from collections.abc import Collection, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from raylora.cluster.storage.filesystem import Location, is_full, locate
from raylora.config import Job
from raylora.errors import ConfigError, FullDiskError

CONFIG = "config.yaml"
DATA = "data.json"
FRAMES = "data"  # a folder
DATA_REPORT = "data_report.json"
LOCK = "lock.json"
HISTORY = "history.jsonl"
BAD_ROWS = "bad_rows.jsonl"
CHECKPOINT = "checkpoint_"  # and a number
ADAPTER = "adapter"
REPORT = "report.html"
EVALUATION, EVALUATION_RECORD = "evaluation", "evaluation.json"
REVIEW = "review.csv"
FINISHED = "metrics.json"  # a folder that has it is finished
TENSORBOARD = "tensorboard"  # a folder
TRACKERS = "trackers.json"
TRIALS = "trials"
TRIAL_RUNS = "train"
TRIALS_TABLE = "trials.csv"
BEST_CONFIG = "best_config.yaml"
ADAPTERS = "adapters.json"
SERVING = "serving.json"
VERSIONS = "versions"
OLD_ADAPTER_CHANGES = "adapters.changes.jsonl"
ADAPTER_CHANGES = "adapters.changes"  # a table of 100,000 adapters is 30 MB, a change 300 bytes

MAKE_ROOM = "Make room there, then run the same command: what was reached is kept."

Kind = Literal["run", "sweep", "endpoint", "unknown"]


def kind_of(names: Collection[str]) -> Kind | None:
    """What a folder with these files and folders is of; None where it is no job's, `unknown` where a job was
    interrupted before it left anything but its config."""
    if CONFIG not in names:
        return "endpoint" if ADAPTERS in names else None
    if TRIALS in names or TRIALS_TABLE in names:
        return "sweep"
    begun = any(name in (FINISHED, HISTORY, ADAPTER) or name.startswith(CHECKPOINT) for name in names)
    return "run" if begun else "unknown"


def open_storage(job: Job) -> Location:
    """The folder of the job's `storage_path`, there or not.

    Raises:
        ConfigError: no such kind of address, or its options cannot be.
    """
    try:
        return locate(job.storage_path)
    except OSError as error:
        raise ConfigError(f"`storage_path` {job.storage_path} cannot be used: {error}") from None


class RunFolder:
    """The folder of one job. Ray takes it as `root` and `name`, or as `path`, with `filesystem`; `uri` is for people.

    What fails in it is a ConfigError that names the storage path.
    """

    key, place_key = "run_name", "storage_path"

    def __init__(self, job: Job) -> None:
        assert job.run_name, "jobfile.name_run names the run before anything is written"
        storage = open_storage(job)
        self.name, self.storage_path, self.root = job.run_name, storage.address, storage.path
        self.location = storage.inside(self.name)
        self.uri, self.filesystem, self.path = self.location.address, storage.filesystem, self.location.path

    def absolute(self, job: Job) -> Job:
        """The job with this folder's `storage_path`: a process elsewhere works in another directory."""
        return job.replace({"storage_path": self.storage_path})

    def inside(self, name: str) -> str:
        """The address of a folder in this one, as a `storage_path`."""
        return self.location.inside(name).address

    def has(self, name: str) -> bool:
        with self.named("read"):
            return self.location.inside(name).exists()

    def read_text(self, name: str) -> str:
        with self.named("read"):
            return self.location.inside(name).read_text()

    def write_text(self, name: str, text: str) -> None:
        """Write a file whole: a reader sees the old content or the new, never a part."""
        with self.named("written to"):
            self.location.inside(name).write_text(text)

    def write_json(self, name: str, value: Any) -> None:
        self.write_text(name, json.dumps(value, indent=2, ensure_ascii=False) + "\n")

    def append_text(self, name: str, text: str) -> None:
        """Add to the end of a file.

        Raises:
            NotImplementedError: object stores cannot; nothing was written.
        """
        with self.named("written to"):
            self.location.inside(name).append(text)

    def upload(self, folder: Path, name: str) -> None:
        """Copy a local folder in; it appears under its name only when it is whole."""
        with self.named("written to"):
            self.location.inside(name).copy_from(folder)

    def check_room(self, needed: int) -> None:
        """Fail before a run that has no room for what it writes.

        Raises:
            FullDiskError: fewer bytes are free than that.
        """
        free = self.location.free_bytes()
        if free is not None and free < needed:
            raise FullDiskError(
                f"`storage_path` {self.storage_path} has room for {free / 1e6:.0f} MB, and the run's checkpoints and "
                f"adapter need about {needed / 1e6:.0f} MB. Make room there, or set another `storage_path`."
            )

    @contextmanager
    def named(self, what: str) -> Generator[None]:
        """What fails in storage meanwhile is a ConfigError: the path cannot be ... `what`."""
        try:
            yield
        except OSError as error:
            if is_full(error):
                raise FullDiskError(f"`storage_path` {self.storage_path} is full: {error}. {MAKE_ROOM}") from None
            raise ConfigError(f"`storage_path` {self.storage_path} cannot be {what}: {error}") from None
