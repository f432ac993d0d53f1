"""Scores of a classifier, from the logits of a whole split: their names, and which of two is better."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    import numpy as np

Metric = Literal["accuracy", "f1", "f1_macro", "loss"]
METRICS: tuple[Metric, ...] = get_args(Metric)
POSITIVE = 1  # scikit-learn's `pos_label`, GLUE's too: of two labels, in id order, the second


def greater_is_better(metric: str) -> bool:
    return metric != "loss"


@dataclass(frozen=True)
class Scores:
    """What a split yields.

    `f1` is that of the positive label where there are two labels, and `f1_macro` where there are more; `f1_macro` the
    mean over labels that occur or are predicted; `loss` the mean cross-entropy over rows, in nats.
    """

    accuracy: float
    f1: float
    f1_macro: float
    loss: float
    rows: int

    @classmethod
    def of(cls, record: Mapping[str, Any], prefix: str = "") -> "Scores":
        """From where `as_dict` went. Before December 2026 there was one F1, `f1`: the macro mean."""
        macro = record.get(f"{prefix}f1_macro", record[f"{prefix}f1"])
        others = {name: record[f"{prefix}{name}"] for name in ("accuracy", "f1", "loss", "rows")}
        return cls(f1_macro=macro, **others)

    def as_dict(self, prefix: str = "") -> dict[str, float]:
        return {f"{prefix}{name}": value for name, value in asdict(self).items()}

    def merit(self, metric: str) -> tuple[float, float]:
        """The better scores have the larger one: by the metric, between equals by the lower loss."""
        value: float = getattr(self, metric)
        return (value if greater_is_better(metric) else -value), -self.loss


def by_name(record: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """The scores of a record, each under what it is: the one F1 that earlier code wrote is `f1_macro`."""
    known = record if f"{prefix}f1_macro" in record else {**record, f"{prefix}f1_macro": record[f"{prefix}f1"]}
    names = METRICS if known is record else [name for name in METRICS if name != "f1"]
    return {name: known[f"{prefix}{name}"] for name in names}


def in_words(record: Mapping[str, Any], prefix: str = "") -> str:
    """The scores of a record for a terminal."""
    return "  ".join(f"{name} {value:.4f}" for name, value in by_name(record, prefix).items())


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
    present = np.unique(np.concatenate([label_ids, predicted]))
    each: Any = {"average": None, "zero_division": 0}  # a class never predicted has precision 0, not a warning
    f1s: np.ndarray = f1_score(label_ids, predicted, labels=present, **each)  # pyright: ignore[reportAssignmentType]
    macro = float(f1s.mean())
    return Scores(
        accuracy=float(accuracy_score(label_ids, predicted)),
        f1=float(f1s[present == POSITIVE].sum()) if logits.shape[1] == 2 else macro,
        f1_macro=macro,
        loss=float(-log_probabilities[np.arange(len(label_ids)), label_ids].mean()),
        rows=len(label_ids),
    )


def softmax(logits: "np.ndarray") -> "np.ndarray":
    """Probabilities [N, C] of logits [N, C]."""
    import numpy as np

    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)
