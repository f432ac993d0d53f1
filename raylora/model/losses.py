"""The loss of a row, by problem type and as the job wants it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from raylora.config import Job
from raylora.tasks import ProblemType, Units

if TYPE_CHECKING:
    from raylora.model.fit.splits import Splits

GAMMA = 2.0  # Lin et al. 2017, sec. 5


@dataclass(frozen=True)
class Wanted:
    """Args:
    kind: of `train.loss`.
    smoothing: share of the target that is spread over all labels.
    weights: [C] float32 of labels, or None.
    units: of the labels' numbers.
    """

    kind: str
    smoothing: float
    weights: Tensor | None
    units: Units


RowLoss = Callable[[Tensor, Tensor], Tensor]


def row_loss(job: Job, splits: "Splits", units: Units) -> RowLoss:
    """A function of logits [B, C] and targets [B] or [B, C] to the losses [B] float32 of the rows.

    A row's weight does not depend on the batch it is in, so that the mean over any number of workers is the same; the
    mean weight of a train row is 1.

    Raises:
        ConfigError: `train.class_weights` names a label that is not there.
    """
    kind = job.train.loss or splits.task.losses[0]
    weights = class_weights(job, splits)
    tensor = None if weights is None else torch.from_numpy(weights)
    wanted = Wanted(kind, job.train.label_smoothing_factor, tensor, units)
    made = LOSSES[splits.task.problem_type]
    return lambda logits, targets: made(wanted, logits.float(), targets)


def class_weights(job: Job, splits: "Splits") -> np.ndarray | None:
    """[C] float32 of `train.class_weights`, as `Task.weights` has them; None where it has none.

    Raises:
        ConfigError: it names a label that is not there.
    """
    given, labels = job.train.class_weights, splits.labels
    if given is None:
        return None
    counts = np.array(list(splits.task.counts(splits.train.targets, labels).values()), dtype=np.float64)
    job.train.check_weighed(labels)
    own = None if given == "balanced" else np.array([given.get(label, 1.0) for label in labels])
    return splits.task.weights(counts, len(splits.train), own).astype(np.float32)


def _cross_entropy(wanted: Wanted, logits: Tensor, targets: Tensor) -> Tensor:
    losses = functional.cross_entropy(logits, targets, reduction="none", label_smoothing=wanted.smoothing)
    if wanted.kind == "focal":
        right = logits.log_softmax(-1).gather(1, targets[:, None])[:, 0].exp()
        losses = (1 - right) ** GAMMA * losses
    return losses if wanted.weights is None else losses * wanted.weights.to(logits.device)[targets]


def _binary_cross_entropy(wanted: Wanted, logits: Tensor, targets: Tensor) -> Tensor:
    """The mean over labels."""
    smooth = targets * (1 - wanted.smoothing) + 0.5 * wanted.smoothing
    weights = None if wanted.weights is None else wanted.weights.to(logits.device)
    losses = functional.binary_cross_entropy_with_logits(logits, smooth, pos_weight=weights, reduction="none")
    if wanted.kind == "focal":
        right = torch.where(targets > 0, logits.sigmoid(), (-logits).sigmoid())
        losses = (1 - right) ** GAMMA * losses
    return losses.mean(1)


def _distance(wanted: Wanted, logits: Tensor, targets: Tensor) -> Tensor:
    """Of standardised numbers: which is what the model is trained on (`Units`)."""
    scale, shift = (
        torch.as_tensor(part, dtype=torch.float32, device=logits.device)
        for part in (wanted.units.scale, wanted.units.shift)
    )
    made = functional.huber_loss if wanted.kind == "huber" else functional.mse_loss
    return made(logits, (targets - shift) / scale, reduction="none").mean(1)


LOSSES: dict[ProblemType, Callable[[Wanted, Tensor, Tensor], Tensor]] = {
    "single_label_classification": _cross_entropy,
    "multi_label_classification": _binary_cross_entropy,
    "regression": _distance,
}
