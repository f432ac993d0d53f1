"""What an adapter's scores are worth, learned on validation rows: a temperature, thresholds, and a promise."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

TEMPERATURES = (0.05, 20.0)
PROMISES = (0.9, 0.95, 0.99)
CHI_SQUARE = 3.84  # 95 % quantile, one degree of freedom
FEWEST_POSITIVES = 10  # rows of a label below which its own threshold is chance


def best_temperature(loss: "Callable[[float], float]", terms: int) -> float:
    """The temperature of the lowest loss (Guo et al. 2017, sec. 4.2); 1 where chance may have made that lower.

    Chance is Wilks's: twice the gain of all terms together is below the 95 % quantile of chi-square of one degree.

    Args:
        loss: of a temperature, mean of so many `terms`, in nats; one minimum.
    """
    import math

    from scipy.optimize import minimize_scalar

    low, high = map(math.log, TEMPERATURES)
    found: Any = minimize_scalar(
        lambda x: loss(math.exp(x)), bounds=(low, high), method="bounded", options={"xatol": 1e-4}
    )
    temperature = math.exp(float(found.x))
    return temperature if 2 * terms * (loss(1.0) - loss(temperature)) > CHI_SQUARE else 1.0


@dataclass(frozen=True)
class MinScore:
    """The score from which on answers are right as often as was asked.

    Args:
        score: least score of an answer that counts.
        coverage: share of the validation rows that reach it.
        rows: validation rows that reach it.
        error: standard error of the share that is right among so many rows.
    """

    score: float
    coverage: float
    rows: int
    error: float


def min_score(scores: "np.ndarray", right: "np.ndarray", accuracy: float) -> MinScore | None:
    """The lowest score above which answers are right often enough, or None where no score is known to be.

    Conformal: among the n rows that reach it, (wrong + 1) / (n + 1) is at most 1 - accuracy, so that the next row like
    these that reaches it is right with that probability (after Angelopoulos et al. 2022, conformal risk control). The
    lowest of many scores is taken, so chance has a say: at most 4 in 100 simulated validation sets gave a score above
    which new rows fall short of what was asked by over two of its standard errors (tests/unit/test_calibration).

    Args:
        scores: [N] of the label that is answered.
        right: [N] bool.
    """
    import numpy as np

    order = np.argsort(-scores, kind="stable")
    ordered, wrong = scores[order], np.cumsum(~right[order])
    count = np.arange(1, len(order) + 1)
    holds = (wrong + 1) / (count + 1) <= 1 - accuracy + 1e-12
    holds &= np.r_[ordered[1:] < ordered[:-1], True]  # rows of one score are taken together
    if not holds.any():
        return None
    last = int(np.flatnonzero(holds)[-1])
    error = float(np.sqrt(accuracy * (1 - accuracy) / count[last]))
    return MinScore(float(ordered[last]), float(count[last] / len(order)), int(count[last]), error)


def best_thresholds(scores: "np.ndarray", truth: "np.ndarray") -> "np.ndarray":
    """[C]: of each label the threshold of the highest F1; of rare ones, that of all labels together.

    Args:
        scores: [N, C].
        truth: [N, C] bool.
    """
    import numpy as np

    found = shared_threshold(scores, truth)
    for c in np.flatnonzero(truth.sum(axis=0) >= FEWEST_POSITIVES):
        found[c] = _best_threshold(scores[:, c], truth[:, c])
    return found


def shared_threshold(scores: "np.ndarray", truth: "np.ndarray") -> "np.ndarray":
    """[C]: the threshold of the highest F1 over all rows and labels together, for each label.

    Args:
        scores: [N, C].
        truth: [N, C] bool.
    """
    import numpy as np

    return np.full(scores.shape[1], _best_threshold(scores.ravel(), truth.ravel()))


def _best_threshold(scores: "np.ndarray", truth: "np.ndarray") -> float:
    """Midway between the lowest score that is taken and the next below; 0.5 where nothing is to be found."""
    import numpy as np

    if not truth.any():
        return 0.5
    order = np.argsort(-scores, kind="stable")
    ordered, hits = scores[order], np.cumsum(truth[order])
    f1 = 2 * hits / (np.arange(1, len(order) + 1) + truth.sum())
    f1[np.r_[ordered[1:] == ordered[:-1], False]] = -1  # rows of one score are taken together
    best = int(f1.argmax())
    below = ordered[best + 1] if best + 1 < len(ordered) else 0.0
    return float((ordered[best] + below) / 2)
