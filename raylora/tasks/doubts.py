"""How far labels are borne out by models that did not see them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Doubts:
    """Of rows.

    Args:
        quality: [N] from 0, surely wrong, to 1, surely right.
        is_error: [N] bool, taken for wrong.
        suggested: [N, ...], shaped as targets: what the models say instead.
    """

    quality: "np.ndarray"
    is_error: "np.ndarray"
    suggested: "np.ndarray"

    def order(self) -> "np.ndarray":
        """[N] places of rows, the most doubtful first: those taken for wrong, then the others."""
        import numpy as np

        return np.lexsort((self.quality, ~self.is_error))


def confident_errors(scores: "np.ndarray", ids: "np.ndarray") -> "np.ndarray":
    """[N] bool: rows that confident learning takes for another label's (Northcutt et al. 2021, sec. 3.1).

    A row counts as a label's where its score reaches the mean score that the rows of this label give it; of several
    such labels, the highest. It is an error where that label is not its own.

    Args:
        scores: [N, C] probabilities from models that did not see the row.
        ids: [N] labels as given.
    """
    import numpy as np

    rows, counts = len(ids), np.bincount(ids, minlength=scores.shape[1])
    own = np.bincount(ids, scores[np.arange(rows), ids], minlength=scores.shape[1])
    thresholds = np.where(counts > 0, own / np.maximum(counts, 1), np.inf)
    confident = np.where(scores >= thresholds - 1e-12, scores, -1.0)
    best = confident.argmax(axis=1)
    return (confident.max(axis=1) >= 0) & (best != ids)


def margins(scores: "np.ndarray", ids: "np.ndarray") -> "np.ndarray":
    """[N] from 0 to 1: half of one more than a label's score less the highest of another's.

    Args:
        scores: [N, C].
        ids: [N] labels as given.
    """
    import numpy as np

    rows = np.arange(len(ids))
    others = scores.copy()
    others[rows, ids] = -np.inf
    return (scores[rows, ids] - others.max(axis=1) + 1) / 2
