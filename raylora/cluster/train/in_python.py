"""A train job from what a program holds: `raylora.train`."""

import os
from collections.abc import Mapping
from typing import Any

from raylora.cluster.data import frames
from raylora.cluster.data.rows import Split
from raylora.cluster.data.sources import list_sources
from raylora.cluster.resolve import check_folder
from raylora.cluster.session import environ
from raylora.cluster.storage.run_folder import FINISHED, FRAMES, RunFolder
from raylora.cluster.train.job import train
from raylora.config import Job
from raylora.config import file as jobfile
from raylora.errors import ConfigError
from raylora.records import Say, TrainResult


def train_on(data: Mapping[Any, Any], settings: dict[str, Any], config: str | None, say: Say) -> TrainResult:
    """Args:
    data: of each split rows in some form, an address (or several), or None.

    Raises:
        RayLoraError: the job cannot be.
        TrainingError: the run failed.
    """
    job = jobfile.read([config] if config else [], environ()).replace(settings)
    job = _with_data(jobfile.name_run(job, "train"), {**data, **_split(data)})
    return train(job, list_sources(job.data, say), say)


def _split(data: Mapping[Any, Any]) -> dict[Split, Any]:
    """A DatasetDict as `train` holds other splits, too; what is passed for them by name wins."""
    given: dict[Split, Any] = {split: each for split, each in data.items() if each is not None}
    own: dict[Split, Any] = {split: frames.of_split(each, split) for split, each in given.items()}
    return {**(frames.splits_of(data["train"]) or {}), **own}


def _with_data(job: Job, data: dict[Split, Any]) -> Job:
    """The job with an address for each split, its rows written to the run's folder."""
    given: dict[Split, Any] = {split: each for split, each in data.items() if each is not None}
    held: dict[Split, Any] = {split: each for split, each in given.items() if not _is_address(each)}
    named = {f"data.{split}": _as_text(each) for split, each in given.items() if split not in held}
    if held and job.data.format not in ("auto", "jsonl"):
        raise ConfigError(f"`data.format` is {job.data.format}, of files: leave it out beside rows that are passed.")
    if held:
        folder = RunFolder(job)
        if folder.has(FINISHED):
            check_folder(folder, job)  # says so
        place = folder.location.inside(FRAMES)
        with folder.named("written to"):
            named |= {f"data.{split}": frames.save(rows, place, split, job.data) for split, rows in held.items()}
    return job.replace(named)


def _is_address(data: Any) -> bool:
    if isinstance(data, list):
        return bool(data) and all(_is_address(each) for each in data)
    return isinstance(data, str | os.PathLike)


def _as_text(data: Any) -> str | list[str]:
    return [os.fspath(each) for each in data] if isinstance(data, list) else os.fspath(data)
