"""Adapters that are evaluated, by their manifests: known before a model is loaded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from raylora.cluster.serve import adapter_folders as folders
from raylora.config import Job, parse_saved
from raylora.errors import ConfigError
from raylora.model.lora.manifest import Manifest, read_manifest
from raylora.tasks import Learned, Task, task_of

# the others say how texts are read by the adapter, or how a run splits its rows: its manifest's to say
OF_READING = (
    "train",
    "validation",
    "test",
    "format",
    "delimiter",
    "quoting",
    "decimal",
    "encoding",
    "columns",
    "text_column",
    "text_pair_column",
    "label_column",
    "label_separator",
    "positive_label",
    "on_bad_row",
    "exclude",
)


@dataclass(frozen=True)
class Subject:
    """An adapter that is evaluated; `job` is its run's, None where its manifest does not hold one."""

    name: str
    manifest: Manifest
    job: Job | None

    def task(self, positive_label: str | None) -> Task:
        return task_of(self.manifest.problem_type).for_labels(self.manifest.labels, positive_label)


def read_subjects(adapters: Sequence[str]) -> list[Subject]:
    """Raises:
    ModelError: one is no adapter.
    ConfigError: one is there twice; they are of other tasks or labels than the first.
    """
    twice = next((name for i, name in enumerate(adapters) if name in adapters[:i]), None)
    if twice:
        raise ConfigError(f"adapter {twice} is named twice; it is compared with others.")
    found = [_subject(name) for name in adapters]
    for other in found[1:]:
        _check_alike(found[0], other)
    return found


def _subject(name: str) -> Subject:
    with folders.opened(name) as folder:
        manifest = read_manifest(folder)
    config = manifest.config
    job = parse_saved(config).replace({"data.problem_type": manifest.problem_type}) if config else None
    return Subject(name, manifest, job)


def _check_alike(first: Subject, other: Subject) -> None:
    one, two = first.manifest, other.manifest
    if task_of(one.problem_type) is not task_of(two.problem_type):
        raise ConfigError(
            f"adapters of one task are compared; {first.name} is of {one.problem_type}, {other.name} of "
            f"{two.problem_type}."
        )
    if set(one.labels) != set(two.labels):
        only = [
            f"{', '.join(repr(label) for label in mine.labels if label not in theirs.labels)[:200]} only {name}"
            for mine, theirs, name in ((one, two, first.name), (two, one, other.name))
            if set(mine.labels) - set(theirs.labels)
        ]
        raise ConfigError(f"adapters of the same labels are compared; these know different ones: {'; '.join(only)}.")


def learned_of(subject: Subject, labels: tuple[str, ...]) -> Learned:
    """What it has learned, its labels in this order."""
    return replace(subject.manifest.learned, labels=labels)


def job_of(subject: Subject, settings: Mapping[str, Any], others: bool) -> Job:
    """Of its run, with keys of `data` set otherwise.

    Args:
        others: whether rows are read that are not the run's: they may be in any format, and carry labels that it does
            not know.

    Raises:
        ConfigError: a key is not one of how rows are read.
    """
    for key in settings:
        section, _, name = key.partition(".")
        if section != "data" or name not in OF_READING:
            raise ConfigError(
                f"`{key}` is not evaluate's to set: an adapter is taken as it was trained. Known: "
                f"{', '.join(f'data.{name}' for name in OF_READING)}."
            )
    job = subject.job or Job().replace({"data.problem_type": subject.manifest.problem_type})
    if others:
        job = job.replace({"data.format": "auto"} | ({"data.labels": None} if job.task.has_classes else {}))
    return job.replace(dict(settings))
