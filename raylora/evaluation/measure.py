"""From outputs to the record of an evaluation."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from raylora.evaluation.answered import Answered
from raylora.evaluation.claims import calibration, coverage, promises
from raylora.evaluation.record import Confusion, Evaluation, Robustness
from raylora.evaluation.slices import slices_of, test_name
from raylora.evaluation.traits import Text, traits

if TYPE_CHECKING:
    import numpy as np


def measure(
    answered: Answered,
    texts: Sequence[Text],
    columns: Mapping[str, Sequence[Any]],
    *,
    base_model: str = "",
    metric: str | None = None,
    data: Mapping[str, Any] | None = None,
    robust: Sequence[Robustness] = (),
    notes: Sequence[str] = (),
) -> Evaluation:
    """All numbers of an adapter on labelled rows.

    Args:
        texts: of the rows.
        columns: by name, a value of each row, to slice by beside what texts show themselves.
        metric: the run's own; None = the task's default.
    """
    exam, labels = answered.exam, answered.learned.labels
    return Evaluation(
        name=answered.name,
        base_model=base_model,
        problem_type=answered.task.problem_type,
        labels=labels,
        data=dict(data or {}),
        rows=len(answered.targets),
        metric=metric or answered.task.metrics[0],
        metrics=answered.metrics(),
        row_metric=exam.row_metric,
        merit=exam.merit,
        movement=exam.movement,
        groups=tuple(exam.groups(answered.targets, answered.decisions, labels)),
        confusion=_confusion(exam.confusion(answered.targets, answered.decisions, labels), labels),
        calibration=calibration(answered),
        coverage=coverage(answered),
        promises=promises(answered),
        slices=slices_of(answered, {**columns, **traits(texts)}),
        slice_test=test_name(answered),
        robustness=tuple(robust),
        notes=tuple(notes),
    )


def _confusion(counts: "np.ndarray | None", labels: tuple[str, ...]) -> Confusion | None:
    return None if counts is None else Confusion(labels, tuple(map(tuple, counts.tolist())))
