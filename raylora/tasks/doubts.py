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
        rank: [N] places of rows, the most doubtful first.
    """

    quality: "np.ndarray"
    is_error: "np.ndarray"
    suggested: "np.ndarray"
    rank: "np.ndarray"


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


def by_confidence(scores: "np.ndarray", ids: "np.ndarray") -> Doubts:
    """Of one label a row: quality is the score of the label as given.

    As many rows are taken for wrong as confident learning counts, those of the lowest quality; of these, what it names
    itself comes first.

    Args:
        scores: [N, C] probabilities from models that did not see the row.
        ids: [N] labels as given.
    """
    import numpy as np

    quality, confident = scores[np.arange(len(ids)), ids], confident_errors(scores, ids)
    is_error = np.zeros(len(ids), dtype=bool)
    is_error[np.argsort(quality, kind="stable")[: int(confident.sum())]] = True
    return Doubts(quality, is_error, scores.argmax(axis=1), np.lexsort((quality, ~confident, ~is_error)))
