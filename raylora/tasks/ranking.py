"""Metrics of how well scores order rows, and of what probabilities are worth."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

MOST_CELLS = 20_000_000  # rows x labels that are sorted at an evaluation: some seconds
BINS = 15


def by_label(scores: "np.ndarray", truth: "np.ndarray") -> dict[str, float]:
    """`roc_auc` and `average_precision`, each the mean over labels that some rows carry and others do not.

    Nothing where there is no such label, or more than sorting is worth at an evaluation.

    Args:
        scores: [N, C].
        truth: [N, C] bool.
    """
    import numpy as np
    from sklearn.metrics import average_precision_score, roc_auc_score

    held = truth.sum(axis=0)
    columns = np.flatnonzero((held > 0) & (held < len(truth)))
    if not len(columns) or scores.size > MOST_CELLS or not np.isfinite(scores).all():
        return {}
    areas = [roc_auc_score(truth[:, c], scores[:, c]) for c in columns]
    precisions = [average_precision_score(truth[:, c], scores[:, c]) for c in columns]
    return {"roc_auc": float(np.mean(areas)), "average_precision": float(np.mean(precisions))}


def expected_calibration_error(confidence: "np.ndarray", right: "np.ndarray") -> float:
    """The mean distance, over rows, between what is claimed and what is so, in 15 equal bins (Guo et al. 2017).

    Args:
        confidence: [N] the claimed probability of being right.
        right: [N] bool.
    """
    import numpy as np

    if not np.isfinite(confidence).all():
        return float("nan")
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    rows = np.bincount(bins, minlength=BINS)
    claimed, so = (np.bincount(bins, weights=values, minlength=BINS) for values in (confidence, right.astype(float)))
    return float(np.abs(claimed - so)[rows > 0].sum() / len(confidence))
