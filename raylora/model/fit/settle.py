"""After the last step: what the validation rows teach about the adapter that is kept, and its scores."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from torch import nn

from raylora.config import Job
from raylora.metrics import Scores
from raylora.model.fit.head import fold, last_linear, units_of
from raylora.model.fit.splits import Splits
from raylora.tasks import Task
from raylora.tasks.calibration import MinScore


@dataclass(frozen=True)
class Calibration:
    """`temperature` is folded into the head; the expected calibration errors are of the validation rows it was fitted
    on."""

    temperature: float
    ece_before: float
    ece_after: float


@dataclass(frozen=True)
class Settled:
    """What goes into the manifest beside the weights.

    Args:
        validation: scores of the adapter as it is saved.
        decisions: of the validation rows.
        calibration: None where scores claim nothing, where the head cannot take it, or `train.calibrate` is off.
        thresholds: [C] of scores from which on a label is said; None where the highest score decides.
        min_scores: of `Task.min_scores`.
    """

    task: Task
    validation: Scores
    decisions: np.ndarray
    calibration: Calibration | None
    thresholds: np.ndarray | None
    min_scores: dict[str, MinScore]

    def score(self, outputs: np.ndarray, targets: np.ndarray) -> Scores:
        return self.task.score(outputs, targets, self.thresholds)

    def decide(self, outputs: np.ndarray) -> np.ndarray:
        return self.task.decisions(outputs, self.thresholds)

    def facts(self, labels: tuple[str, ...]) -> dict[str, Any]:
        """The manifest's fields."""
        thresholds = None if self.thresholds is None else dict(zip(labels, self.thresholds.tolist(), strict=True))
        return {
            "calibration": asdict(self.calibration) if self.calibration else None,
            "thresholds": thresholds,
            "min_scores": {promise: asdict(each) for promise, each in self.min_scores.items()},
        }


def settle(job: Job, splits: Splits, model: nn.Module, logits: np.ndarray) -> Settled:
    """Fold the labels' units and a temperature into the head, in place, and learn what the validation rows teach.

    Args:
        model: as its training left it.
        logits: [N, C] by this model, of the validation rows.
    """
    task, targets, units = splits.task, splits.validation.targets, units_of(splits, model)
    outputs = units.of(logits.astype(np.float64))
    before = task.calibration_error(outputs, targets)
    wanted = job.train.calibrate and last_linear(model) is not None
    temperature = task.temperature(outputs, targets) if wanted else 1.0
    fold(model, units, temperature)
    outputs = outputs / temperature
    after = task.calibration_error(outputs, targets)
    calibration = None if before is None or after is None or not wanted else Calibration(temperature, before, after)
    thresholds = task.thresholds(outputs, targets, job.metric)
    return Settled(
        task=task,
        validation=task.score(outputs, targets, thresholds),
        decisions=task.decisions(outputs, thresholds),
        calibration=calibration,
        thresholds=thresholds,
        min_scores=task.min_scores(outputs, targets),
    )
