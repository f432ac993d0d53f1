"""An evaluation: adapters and rows are looked at first, then each adapter answers, then all is reckoned."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import raylora
from raylora.cluster.evaluate.answers import Progress, logits_of
from raylora.cluster.evaluate.rows import LabelledRows, labelled_rows
from raylora.cluster.evaluate.subjects import Subject, job_of, learned_of, read_subjects
from raylora.errors import ConfigError, DataError
from raylora.evaluation.alter import ALTERATIONS
from raylora.evaluation.answered import Answered
from raylora.evaluation.compare import comparisons
from raylora.evaluation.gates import Gate, check_known
from raylora.evaluation.measure import measure
from raylora.evaluation.record import Evaluation, Evaluations
from raylora.evaluation.robust import robustness
from raylora.model.kinds import check_kind
from raylora.records import Say


@dataclass(frozen=True)
class Wanted:
    """What is evaluated.

    Args:
        data: addresses or rows; None = what the first adapter's run held out.
        settings: keys of `data` that say how rows are read.
        slice_by: columns.
        robust: whether texts are altered, too.
        gates: that are checked later; a metric that the task has not is refused at once.
        base_model, trust_remote_code: of `raylora.load`.
    """

    adapters: Sequence[str]
    data: Any = None
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    slice_by: Sequence[str] = ()
    robust: bool = False
    gates: Sequence[Gate] = ()
    base_model: str | None = None
    trust_remote_code: bool = False


@dataclass(frozen=True)
class Evaluated:
    """The record, and what it was made of, for tables of rows."""

    record: Evaluations
    rows: LabelledRows
    answered: tuple[Answered, ...]


def evaluate(wanted: Wanted, say: Say) -> Evaluated:
    """Raises:
    RayLoraError: an adapter, the rows or a wish cannot be.
    """
    if not wanted.adapters:
        raise ConfigError("name at least one adapter to evaluate.")
    subjects = read_subjects(wanted.adapters)
    first, job = subjects[0], job_of(subjects[0], wanted.settings, wanted.data is not None)
    task = first.task(job.data.positive_label)
    check_known(wanted.gates, task.metrics, task.problem_type)
    rows = labelled_rows(first, job, task, wanted.data, wanted.slice_by, say)
    for subject in subjects:
        check_kind(subject.manifest, rows.texts, "row")
    _say_rows(rows, say)
    progress = Progress(say, len(subjects) * len(rows.texts) * (1 + wanted.robust * len(ALTERATIONS)))
    found = [_one(wanted, subject, first, job.data.positive_label, rows, progress) for subject in subjects]
    answered = tuple(each for each, _ in found)
    metric = first.job.metric if first.job and first.job.metric in answered[0].resampled else task.metrics[0]
    records = tuple(
        _record(each, subject, rows, metric, robust, _notes(subject, first, wanted))
        for (each, robust), subject in zip(found, subjects, strict=True)
    )
    return Evaluated(Evaluations(records, comparisons(answered, metric)), rows, answered)


def _say_rows(rows: LabelledRows, say: Say) -> None:
    facts = rows.facts
    say(f"rows       {len(rows.texts):,} of {facts['split']} ({', '.join(facts['addresses'][:3])})")
    if facts["bad_rows"]:
        say(f"warning    {len(facts['bad_rows']):,} rows cannot be used and are left out")
    if facts["unknown_labels"]:
        unknown = ", ".join(f"'{label}' {count:,}" for label, count in list(facts["unknown_labels"].items())[:10])
        say(f"warning    rows of labels that no adapter here knows are left out: {unknown}")


def _one(
    wanted: Wanted, subject: Subject, first: Subject, positive: str | None, rows: LabelledRows, progress: Progress
) -> tuple[Answered, Any]:
    """An adapter's answers, by the first one's order of labels, and what becomes of them when texts are altered."""
    predictor = raylora.load(subject.name, wanted.trust_remote_code, wanted.base_model)
    labels = first.manifest.labels
    order = [subject.manifest.labels.index(label) for label in labels]

    def logits(texts: Sequence[Any], what: str) -> np.ndarray:
        return logits_of(predictor, texts, progress, f"{subject.name}, {what}")[:, order]

    outputs = logits(rows.texts, "as it is")
    if not np.isfinite(outputs).all():
        raise DataError(f"{subject.name} gives outputs that are no numbers: its weights are broken.")
    answered = Answered(subject.name, first.task(positive), learned_of(subject, labels), outputs, rows.targets)
    return answered, robustness(answered, rows.texts, logits) if wanted.robust else ()


def _record(
    answered: Answered, subject: Subject, rows: LabelledRows, metric: str, robust: Any, notes: Sequence[str]
) -> Evaluation:
    return measure(
        answered,
        rows.texts,
        rows.columns,
        base_model=subject.manifest.base_model,
        metric=metric,
        data=rows.facts,
        robust=robust,
        notes=notes,
    )


def _notes(subject: Subject, first: Subject, wanted: Wanted) -> list[str]:
    same = subject.manifest.data.get("fingerprint") == first.manifest.data.get("fingerprint")
    if wanted.data is not None or same:
        return []
    return [f"{subject.name} learned from other rows than {first.name}, and may have seen some of these."]
