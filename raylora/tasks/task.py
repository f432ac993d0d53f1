"""What differs between the tasks of sequence classification, and nothing else: a class a problem type."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from raylora.errors import ConfigError
from raylora.metrics import Scores
from raylora.tasks.answers import Answers
from raylora.tasks.calibration import MinScore
from raylora.tasks.doubts import Doubts
from raylora.tasks.parsed import LabelColumn, Parsed

if TYPE_CHECKING:
    import numpy as np

Pooling = Literal["mean", "max"]
MOST_WEIGHT = 100.0  # of a label, balanced: one of a handful of rows would swamp each batch it is in


@dataclass(frozen=True)
class Units:
    """Outputs in the labels' own unit: `logits * scale + shift`, both [C] float64."""

    scale: "np.ndarray"
    shift: "np.ndarray"

    def of(self, logits: "np.ndarray") -> "np.ndarray":
        return logits * self.scale + self.shift


@dataclass(frozen=True)
class LabelCounts:
    """Rows of each label, the commonest first; a row of several labels counts for each."""

    counts: dict[str, int]


@dataclass(frozen=True)
class NumberRange:
    """Of labels that are numbers."""

    min: float
    mean: float
    max: float


@dataclass(frozen=True)
class Task(Answers, ABC):
    """One problem type; what its callers see is `Answers`.

    A label travels as its `form`, a string, until the driver knows all of them; then as a target: a row of an array,
    whose first axis is the rows.

    Attributes:
        metrics: their names, the default first; `loss` is always one.
        shown: those that a terminal shows.
        decided: those that are known of decisions alone, without scores; a floor is compared by one of them.
        losses: what `train.loss` may be, the default first.
        has_classes: whether labels are classes, which can be weighed.
        fewest_labels: that `data.labels` may name.
        pool_windows: how the logits of a long row's windows become the row's.
    """

    metrics: ClassVar[tuple[str, ...]]
    shown: ClassVar[tuple[str, ...]]
    decided: ClassVar[tuple[str, ...]]
    losses: ClassVar[tuple[str, ...]]
    has_classes: ClassVar[bool] = True
    fewest_labels: ClassVar[int] = 1
    pool_windows: ClassVar[Pooling] = "mean"

    # --- labels

    @abstractmethod
    def parse(self, value: Any, column: LabelColumn) -> Parsed:
        """A label of a file, as a form."""

    def written(self, form: str) -> str:
        """A form as people write it in a cell, several values with `SEPARATOR` between them."""
        return form

    @abstractmethod
    def form(self, target: "np.ndarray", labels: Sequence[str]) -> str:
        """The form of one row's target."""

    @abstractmethod
    def labels(self, forms: Sequence[str], rows: int, column: LabelColumn) -> tuple[str, ...]:
        """What the outputs stand for, in order.

        Args:
            forms: that the train rows carry, each once; `rows` is how many train rows there are.

        Raises:
            DataError: nothing can be learned of these.
        """

    @abstractmethod
    def unknown(self, form: str, labels: Sequence[str]) -> list[str]:
        """The labels of a form that are not among `labels`."""

    @abstractmethod
    def targets(self, forms: Sequence[str], labels: Sequence[str]) -> "np.ndarray":
        """[N, ...] of forms; what is unknown is any value."""

    @abstractmethod
    def strata(self, targets: "np.ndarray") -> "np.ndarray":
        """[N] int64: rows that carry one number are shared out between the splits."""

    def on_both_sides(self, labels: Sequence[str]) -> list[str] | None:
        """The labels that each need rows in train and in validation, by stratum; None where none must."""
        return None

    @abstractmethod
    def counts(self, targets: "np.ndarray", labels: Sequence[str]) -> dict[str, int]:
        """Rows by label."""

    def tally(self, forms: Mapping[str, int]) -> LabelCounts | NumberRange:
        """What a file's labels are.

        Args:
            forms: how many rows carry each, the commonest first.
        """
        return LabelCounts(dict(forms))

    @abstractmethod
    def in_words(self, targets: "np.ndarray", labels: Sequence[str]) -> str:
        """What the labels of train rows are, for a terminal."""

    def for_labels(self, labels: Sequence[str], positive_label: str | None) -> "Task":
        """The task of these labels.

        Raises:
            ConfigError: `data.positive_label` is not one of them, or the task has no such label.
        """
        if positive_label is not None:
            raise ConfigError(f"`data.positive_label` is of one label a row; the task is {self.problem_type}.")
        return self

    def units(self, targets: "np.ndarray", num_outputs: int) -> Units:
        """Of the train rows' targets; outputs that are no numbers of the data have none (1 and 0)."""
        import numpy as np

        return Units(np.ones(num_outputs), np.zeros(num_outputs))

    def standard(self, units: Units, targets: "np.ndarray") -> "np.ndarray":
        """Targets as a model is trained on them."""
        return targets

    def weights(self, counts: "np.ndarray", rows: int, given: "np.ndarray | None") -> "np.ndarray":
        """[C] of labels in the loss.

        Args:
            counts: [C] train rows that carry each, of `rows`.
            given: [C] as the job has them; None = so that all labels weigh alike.
        """
        raise AssertionError(f"{self.problem_type} has no labels to weigh; the config refuses it")

    def check_learnable(self, targets: "np.ndarray") -> str | None:
        """Why no probe can be fitted on these rows, or None."""
        return None

    def nothing_to_learn(self, targets: "np.ndarray") -> str | None:
        """Why a run on these train rows, which are left of a split, would be for nothing, or None."""
        return None

    # --- scores

    def untold(self, metric: str, targets: "np.ndarray") -> str | None:
        """Why a metric of `decided` says nothing of any outputs for these rows, or None."""
        return None

    @abstractmethod
    def score(self, outputs: "np.ndarray", targets: "np.ndarray", thresholds: "np.ndarray | None" = None) -> Scores:
        """Exact scores over all rows; never a mean of per-worker or per-batch means.

        Args:
            outputs: [N, C] logits, or numbers in the labels' own unit (`Units`).
            targets: [N, ...] as `targets` gives them.
            thresholds: [C] of scores, where labels are decided by them; None = 0.5.
        """

    @abstractmethod
    def decisions(self, outputs: "np.ndarray", thresholds: "np.ndarray | None" = None) -> "np.ndarray":
        """[N, ...], shaped as targets: what the outputs say a row is."""

    @abstractmethod
    def resampled(
        self, metric: str, draws: "np.ndarray", targets: "np.ndarray", decisions: "np.ndarray", num_labels: int
    ) -> "np.ndarray":
        """[R] of each resample the value of a metric of `decided`.

        Args:
            draws: [R, N] how often each row is in each resample.
        """

    def decided_scores(self, targets: "np.ndarray", decisions: "np.ndarray", num_labels: int) -> dict[str, float]:
        """The metrics of `decided`, over all rows."""
        import numpy as np

        once = np.ones((1, len(targets)))
        return {
            metric: float(self.resampled(metric, once, targets, decisions, num_labels)[0]) for metric in self.decided
        }

    def metric_of(self, metric: str) -> str:
        """The metric that a floor is compared by: this one, or the task's default where it needs scores."""
        return metric if metric in self.decided else self.decided[0]

    # --- what validation rows teach

    def temperature(self, outputs: "np.ndarray", targets: "np.ndarray") -> float:
        """By which outputs are divided so that scores are what they claim; 1 where they claim nothing."""
        return 1.0

    def calibration_error(self, outputs: "np.ndarray", targets: "np.ndarray") -> float | None:
        """The expected calibration error of the scores; None where they claim nothing."""
        return None

    def thresholds(self, outputs: "np.ndarray", targets: "np.ndarray", metric: str) -> "np.ndarray | None":
        """[C] of scores from which on a label is said, for the highest value of a metric; None where the highest score
        decides."""
        return None

    @abstractmethod
    def doubts(self, outputs: "np.ndarray", targets: "np.ndarray") -> Doubts:
        """How far models that did not see a row bear out its label.

        Args:
            outputs: [N, C] by them, as `score` takes them.
        """

    def min_scores(self, outputs: "np.ndarray", targets: "np.ndarray") -> dict[str, MinScore]:
        """By accuracy, as text ("0.95"): the score from which on answers are right so often; only what is reached."""
        return {}

    # --- words of a model card

    @abstractmethod
    def purpose(self, labels: Sequence[str]) -> str:
        """What an adapter does, in a sentence of Markdown."""

    def titles(self, labels: Sequence[str]) -> list[str]:
        """Of the columns of `shown`."""
        return list(self.shown)
