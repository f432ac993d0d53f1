"""What turns logits into the scores that a caller sees."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np

Function = Literal["softmax", "sigmoid", "none"]


def softmax(logits: "np.ndarray") -> "np.ndarray":
    """Probabilities [N, C] of logits [N, C]."""
    import numpy as np

    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def log_softmax(logits: "np.ndarray") -> "np.ndarray":
    """Logarithms of probabilities [N, C] float64 of logits [N, C]."""
    import numpy as np

    logits = logits.astype(np.float64)
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def sigmoid(logits: "np.ndarray") -> "np.ndarray":
    """Probabilities of logits, each by itself."""
    import numpy as np

    return np.exp(-np.logaddexp(0.0, -logits))


FUNCTIONS: dict[Function, Callable[["np.ndarray"], "np.ndarray"]] = {
    "softmax": softmax,
    "sigmoid": sigmoid,
    "none": lambda logits: logits,
}
