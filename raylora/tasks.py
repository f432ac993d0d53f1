"""The form of an answer, by problem type: what turns logits into the scores that a caller sees."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from raylora.metrics import softmax

Function = Literal["softmax", "sigmoid", "none"]


@dataclass(frozen=True)
class LabelScore:
    label: str
    score: float


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return np.exp(-np.logaddexp(0.0, -logits))


FUNCTIONS: dict[Function, Callable[[np.ndarray], np.ndarray]] = {
    "softmax": softmax,
    "sigmoid": _sigmoid,
    "none": lambda logits: logits,
}

# transformers' text-classification pipeline applies the same by default
APPLIED: dict[str, Function] = {"single_label_classification": "softmax"}


def scores(logits: np.ndarray, problem_type: str, function_to_apply: Function | None = None) -> np.ndarray:
    """[N, C] float64 of logits [N, C], by the problem type's own function unless another is named."""
    return FUNCTIONS[function_to_apply or APPLIED[problem_type]](logits.astype(np.float64))


def best_first(row: np.ndarray, labels: Sequence[str], top_k: int | None = None) -> list[LabelScore]:
    """Labels of one row of `scores` with their scores; the earlier label first among equals."""
    return [LabelScore(labels[int(i)], float(row[i])) for i in np.argsort(-row, kind="stable")[:top_k]]
