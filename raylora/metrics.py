"""Scores of a classifier, from the logits of a whole split."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Scores:
    """What a split yields. `f1` is the macro mean over labels; `loss` the mean cross-entropy over rows, in nats."""

    accuracy: float
    f1: float
    loss: float
    rows: int

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


def score(logits: "np.ndarray", label_ids: "np.ndarray") -> Scores:
    """Exact scores over all rows; never a mean of per-worker or per-batch means.

    Args:
        logits: [N, C] unnormalized.
        label_ids: [N] in [0, C).
    """
    import numpy as np
    from sklearn.metrics import accuracy_score, f1_score

    predicted = logits.argmax(axis=1)
    logits = logits.astype(np.float64)
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    macro: Any = {"average": "macro", "zero_division": 0}  # a class never predicted has precision 0, not a warning
    present = np.unique(np.concatenate([label_ids, predicted]))
    return Scores(
        accuracy=float(accuracy_score(label_ids, predicted)),
        f1=float(f1_score(label_ids, predicted, labels=present, **macro)),
        loss=float(-log_probabilities[np.arange(len(label_ids)), label_ids].mean()),
        rows=len(label_ids),
    )


def softmax(logits: "np.ndarray") -> "np.ndarray":
    """Probabilities [N, C] of logits [N, C]."""
    import numpy as np

    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)
