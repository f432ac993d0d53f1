"""Metrics of many resamples at once."""

from typing import TYPE_CHECKING

from raylora.tasks.ranking import BINS, MOST_CELLS

if TYPE_CHECKING:
    import numpy as np

RANKED_CELLS = 1e8  # resamples x rows x labels that are gone through in order: some seconds
FEWEST_RESAMPLES = 100


def share(part: "np.ndarray", whole: "np.ndarray") -> "np.ndarray":
    """0 where the whole is nothing."""
    import numpy as np

    return np.where(whole > 0, part / np.where(whole > 0, whole, 1), 0.0)


class Counts:
    """Rows of each resample and label, [R, C]: `held`, `said`, and `both`."""

    def __init__(self, draws: "np.ndarray", truth: "np.ndarray", decided: "np.ndarray") -> None:
        """Args:
        truth, decided: [N, C] bool.
        """
        self.held, self.said = draws @ truth.astype(float), draws @ decided.astype(float)
        self.both = draws @ (truth & decided).astype(float)

    @property
    def by_label(self) -> "dict[str, np.ndarray]":
        """[R, C] each."""
        return {
            "precision": share(self.both, self.said),
            "recall": share(self.both, self.held),
            "f1": share(2 * self.both, self.held + self.said),
        }

    def mean(self, values: "np.ndarray") -> "np.ndarray":
        """[R] over the labels that occur or are said in a resample."""
        return share(values.sum(axis=1), (self.held + self.said > 0).sum(axis=1))


class Ranking:
    """`roc_auc` and `average_precision`, means over the labels that some rows of a resample carry and others do not.

    Of many rows and labels only some resamples, at least 100, are gone through; the others are NaN.
    """

    def __init__(self, scores: "np.ndarray", truth: "np.ndarray") -> None:
        """Args:
        scores: [N, C]; truth: [N, C] bool.
        """
        import numpy as np

        self._left = max(FEWEST_RESAMPLES, int(RANKED_CELLS / max(scores.size, 1))) + 1
        held = truth.sum(axis=0)
        columns = np.flatnonzero((held > 0) & (held < len(truth)))
        self._is_known = len(columns) > 0 and scores.size <= MOST_CELLS and bool(np.isfinite(scores).all())
        self._labels = [_Label(scores[:, c], truth[:, c]) for c in columns] if self._is_known else []

    def of(self, draws: "np.ndarray") -> "dict[str, np.ndarray]":
        """[R] each; nothing where no metric is known of the rows."""
        import numpy as np

        if not self._is_known:
            return {}
        here = min(self._left, len(draws))
        self._left -= here
        found = np.full((2, len(draws)), np.nan)
        if here:
            rows = np.ascontiguousarray(draws[:here].T)  # whole rows are moved, not single numbers
            areas = np.array([label.areas(rows) for label in self._labels])
            known = ~np.isnan(areas)
            found[:, :here] = np.where(
                known.any(axis=0), np.nansum(areas, axis=0) / np.maximum(known.sum(axis=0), 1), np.nan
            )
        return {"roc_auc": found[0], "average_precision": found[1]}


class _Label:
    """The rows of a label, and where they stand among all in the order of their scores."""

    def __init__(self, scores: "np.ndarray", truth: "np.ndarray") -> None:
        """Args:
        scores, truth: [N], some true and some not.
        """
        import numpy as np

        self._order = np.argsort(-scores, kind="stable")
        ordered = scores[self._order]
        ends = np.flatnonzero(np.r_[ordered[1:] != ordered[:-1], True])  # rows of one score are taken together
        held = np.flatnonzero(truth[self._order])
        groups, self._first = np.unique(np.searchsorted(ends, held), return_index=True)
        self._held, self._ends = held, ends[groups]
        self._before = np.where(groups > 0, ends[groups - 1], -1)

    def areas(self, rows: "np.ndarray") -> "np.ndarray":
        """[2, R] the area under the ROC curve, and the average precision; NaN where a resample has rows of one side.

        Args:
            rows: [N, R] how often each is drawn.
        """
        import numpy as np

        drawn = rows[self._order]
        more = np.add.reduceat(drawn[self._held], self._first, axis=0)
        hits = np.cumsum(more, axis=0)
        taken = np.cumsum(drawn, axis=0, out=drawn)
        others = taken[self._ends] - hits
        earlier = np.where(self._before[:, None] < 0, 0.0, taken[self._before]) - (hits - more)
        held, free = hits[-1], taken[-1] - hits[-1]
        area = (more * (free - (others + earlier) / 2)).sum(axis=0)
        precision = (more * share(hits, others + hits)).sum(axis=0)
        known = (held > 0) & (free > 0)
        return np.where(known, [area / np.maximum(held * free, 1), precision / np.maximum(held, 1)], np.nan)


def calibration_errors(draws: "np.ndarray", claimed: "np.ndarray", right: "np.ndarray") -> "np.ndarray":
    """[R], as `ranking.expected_calibration_error`."""
    import numpy as np

    bins = np.minimum((claimed * BINS).astype(int), BINS - 1)
    gaps = np.zeros((len(claimed), BINS))
    gaps[np.arange(len(claimed)), bins] = claimed - right
    return np.abs(draws @ gaps).sum(axis=1) / draws.sum(axis=1)


def means(draws: "np.ndarray", values: "np.ndarray") -> "np.ndarray":
    """[R] of [N]."""
    return draws @ values / draws.sum(axis=1)
