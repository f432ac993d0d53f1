"""Numbers, examined."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from raylora.tasks.exams.exam import Exam, Group, Resampler
from raylora.tasks.regression import LEAST_SPREAD

if TYPE_CHECKING:
    import numpy as np

QUARTERS = (0.25, 0.5, 0.75)


@dataclass(frozen=True)
class RegressionExam(Exam):
    """A row's merit is its absolute error, below zero."""

    row_metric: ClassVar[str] = "mae"
    merit: ClassVar[str] = "mean absolute error of rows, below zero"
    movement: ClassVar[str] = "mean distance that answers move"

    def resampler(
        self, outputs: "np.ndarray", targets: "np.ndarray", thresholds: "np.ndarray | None" = None
    ) -> Resampler:
        truth = targets.astype(float)
        errors, centred = (outputs - truth) ** 2, truth - truth.mean(axis=0)
        least = LEAST_SPREAD * (truth**2).mean(axis=0)

        def values_of(draws: "np.ndarray") -> "dict[str, np.ndarray]":
            decided = {
                metric: self.task.resampled(metric, draws, targets, outputs, targets.shape[1])
                for metric in self.task.decided
            }
            rows = draws.sum(axis=1)[:, None]
            spread = draws @ centred**2 / rows - (draws @ centred / rows) ** 2
            spread[spread <= least] = 1.0
            return {**decided, "loss": (draws @ errors / rows / spread).mean(axis=1)}

        return values_of

    def merits(self, targets: "np.ndarray", decisions: "np.ndarray") -> "np.ndarray":
        return -self.moved(targets.astype(float), decisions)

    def moved(self, before: "np.ndarray", after: "np.ndarray") -> "np.ndarray":
        import numpy as np

        return np.abs(after - before).mean(axis=1)

    def groups(self, targets: "np.ndarray", decisions: "np.ndarray", labels: Sequence[str]) -> list[Group]:
        """By quarters of each number."""
        return [
            group
            for i, label in enumerate(labels)
            for group in _quarters(label, targets[:, i].astype(float), decisions[:, i])
        ]

    def told(self, decisions: "np.ndarray", labels: Sequence[str]) -> list[Any]:
        return decisions.astype(float).tolist() if len(labels) > 1 else decisions[:, 0].astype(float).tolist()

    def best_scores(self, outputs: "np.ndarray") -> "np.ndarray":
        return outputs[:, 0].astype(float)


def _quarters(label: str, truth: "np.ndarray", said: "np.ndarray") -> list[Group]:
    """Fewer than four where many rows hold one number."""
    import numpy as np

    quarter = np.searchsorted(np.unique(np.quantile(truth, QUARTERS)), truth, side="left")
    groups: list[Group] = []
    for each in np.unique(quarter):
        own, error = truth[quarter == each], (said - truth)[quarter == each]
        values = {"mae": np.abs(error), "mse": error**2, "bias": error, "mean": own, "predicted_mean": own + error}
        found = {name: float(value.mean()) for name, value in values.items()}
        groups.append(Group(f"{label} {own.min():g} to {own.max():g}", len(own), found))
    return groups
