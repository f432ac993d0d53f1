"""What an evaluation asks of a task; a class a problem type."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from raylora.tasks.task import Task

if TYPE_CHECKING:
    import numpy as np

Resampler = Callable[["np.ndarray"], "dict[str, np.ndarray]"]


@dataclass(frozen=True)
class Group:
    """Rows of a label, or of a range of numbers, and what is known of them, by name."""

    name: str
    rows: int
    values: dict[str, float]


@dataclass(frozen=True)
class Claims:
    """Of each decision [M] the probability of being right that its score claims, and whether it is."""

    claimed: "np.ndarray"
    right: "np.ndarray"


@dataclass(frozen=True)
class Exam(ABC):
    """`outputs` are [N, C], `targets` and `decisions` [N, ...], `thresholds` [C] or None, as in `Task.score`.

    Attributes:
        row_metric: the metric that is told of some rows of many.
        merit: what a row's merit is, in words.
        movement: what it is for an answer to move, in words.
        right_or_wrong: whether a row's merit is 1 or 0.
    """

    task: Task

    row_metric: ClassVar[str]
    merit: ClassVar[str]
    movement: ClassVar[str]
    right_or_wrong: ClassVar[bool] = False

    @abstractmethod
    def resampler(
        self, outputs: "np.ndarray", targets: "np.ndarray", thresholds: "np.ndarray | None" = None
    ) -> Resampler:
        """Of draws [R, N], how often each row is in each resample, all metrics [R] by name; NaN where one is not
        known of a resample."""

    @abstractmethod
    def merits(self, targets: "np.ndarray", decisions: "np.ndarray") -> "np.ndarray":
        """[N] float64 how well each row is answered; the higher the better."""

    @abstractmethod
    def moved(self, before: "np.ndarray", after: "np.ndarray") -> "np.ndarray":
        """[N] float64 how far each decision is from what it was."""

    @abstractmethod
    def groups(self, targets: "np.ndarray", decisions: "np.ndarray", labels: Sequence[str]) -> list[Group]:
        """Scores by label, or by ranges of the numbers."""

    def confusion(self, targets: "np.ndarray", decisions: "np.ndarray", labels: Sequence[str]) -> "np.ndarray | None":
        """[C, C] rows by label (first axis) and decision; None where a row has no one label."""
        return None

    def claims(
        self, outputs: "np.ndarray", targets: "np.ndarray", thresholds: "np.ndarray | None" = None
    ) -> Claims | None:
        """What scores claim of decisions; None where they claim nothing."""
        return None

    def certainty(self, outputs: "np.ndarray") -> "np.ndarray | None":
        """[N] by which rows may be left unanswered, the lowest first; None where none may."""
        return None

    @abstractmethod
    def told(self, decisions: "np.ndarray", labels: Sequence[str]) -> list[Any]:
        """Targets or decisions as a table holds them."""

    @abstractmethod
    def best_scores(self, outputs: "np.ndarray") -> "np.ndarray":
        """[N] the score of what is said first."""
