"""An adapter's outputs on labelled rows: what all numbers of an evaluation are made of."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from raylora.evaluation.record import Estimate
from raylora.resampling import interval, resampled
from raylora.tasks import Learned, Task
from raylora.tasks.exams import Exam, exam_of

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Answered:
    """`outputs` [N, C] and `targets` [N, ...], by the labels of `learned`; `task` knows these labels."""

    name: str
    task: Task
    learned: Learned
    outputs: "np.ndarray"
    targets: "np.ndarray"

    @property
    def exam(self) -> Exam:
        return exam_of(self.task)

    @cached_property
    def thresholds(self) -> "np.ndarray | None":
        return self.learned.threshold_of_each()

    @cached_property
    def decisions(self) -> "np.ndarray":
        return self.decide(self.outputs)

    @cached_property
    def merits(self) -> "np.ndarray":
        return self.exam.merits(self.targets, self.decisions)

    @cached_property
    def resampled(self) -> "dict[str, np.ndarray]":
        """By metric, its value over all rows and over each resample of them."""
        return resampled(self.exam.resampler(self.outputs, self.targets, self.thresholds), len(self.targets))

    def decide(self, outputs: "np.ndarray") -> "np.ndarray":
        return self.task.decisions(outputs, self.thresholds)

    def score(self, outputs: "np.ndarray") -> dict[str, float]:
        return dict(self.task.score(outputs, self.targets, self.thresholds))

    def metrics(self) -> dict[str, Estimate]:
        """The task's own scores, each with its interval."""
        return {
            name: Estimate(value, *interval(self.resampled[name])) for name, value in self.score(self.outputs).items()
        }


def estimate(values: "np.ndarray") -> Estimate:
    """Of a mean: of [N] values of rows."""
    found = resampled(lambda draws: {"mean": draws @ values / draws.sum(axis=1)}, len(values))["mean"]
    return Estimate(float(found[0]), *interval(found))
