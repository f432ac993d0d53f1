"""Scores of an adapter on a split: the names of metrics, which of two values is better, and records of them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

# of every task, in the order in which they are shown; each task says which are its own (`raylora.tasks`)
METRICS: tuple[str, ...] = (
    "accuracy",
    "f1",
    "f1_macro",
    "f1_micro",
    "subset_accuracy",
    "precision",
    "recall",
    "roc_auc",
    "average_precision",
    "mcc",
    "pearson",
    "spearman",
    "mse",
    "mae",
    "r2",
    "log_loss",
    "ece",
    "loss",
)
LESS_IS_BETTER = frozenset({"loss", "log_loss", "ece", "mse", "mae"})


def greater_is_better(metric: str) -> bool:
    return metric not in LESS_IS_BETTER


@dataclass(frozen=True)
class Scores(Mapping[str, float]):
    """What a split yields: a mapping of a metric's name to its value, and how many `rows` it is of.

    `scores["accuracy"]` and `scores.accuracy` are the same. `loss` is there for every task: the mean over rows of its
    plain loss, without weights or smoothing.
    """

    values_by_name: Mapping[str, float]
    rows: int

    @classmethod
    def of(cls, record: Mapping[str, Any], prefix: str = "") -> "Scores":
        """From where `as_dict` went. Before December 2026 there was one F1, `f1`: the macro mean."""
        found = {name: record[f"{prefix}{name}"] for name in METRICS if f"{prefix}{name}" in record}
        if "f1" in found and "f1_macro" not in found:
            found["f1_macro"] = found["f1"]
        return cls(found, record[f"{prefix}rows"])

    def __getitem__(self, metric: str) -> float:
        return self.values_by_name[metric]

    def __iter__(self) -> Iterator[str]:
        return iter(self.values_by_name)

    def __len__(self) -> int:
        return len(self.values_by_name)

    def __getattr__(self, name: str) -> float:
        try:
            return self.__dict__["values_by_name"][name]
        except KeyError:
            raise AttributeError(name) from None

    def as_dict(self, prefix: str = "") -> dict[str, float]:
        return {f"{prefix}{name}": value for name, value in {**self, "rows": self.rows}.items()}

    def merit(self, metric: str) -> tuple[float, float]:
        """The better scores have the larger one: by the metric, between equals by the lower loss."""
        value = self[metric]
        return (value if greater_is_better(metric) else -value), -self["loss"]
