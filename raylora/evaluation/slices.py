"""Where an adapter is worse than elsewhere: rows by their columns and traits, with a correction for looking at many."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from raylora.evaluation.answered import Answered
from raylora.evaluation.holm import LEVEL, holm
from raylora.evaluation.record import Estimate, Slice
from raylora.resampling import interval, resampled

if TYPE_CHECKING:
    import numpy as np

FEWEST_ROWS = 10  # of a slice, and outside of it, that are tested: below it no test can tell
MOST_VALUES = 30  # of a column; rarer ones are one slice
NUMBERS_BY_VALUE = 10  # different numbers of a column, above which it is sliced by quarters
NOTHING, OTHERS = "(none)", "(others)"
EXACT = "Fisher's exact test, one-sided"
BY_RANK = "Mann-Whitney U test, one-sided"


def slices_of(answered: Answered, columns: Mapping[str, Sequence[Any]]) -> tuple[Slice, ...]:
    """By each column and each of its values; a column of one value tells nothing and is left out.

    Args:
        columns: by name, a value of each row.
    """
    found = [_raw(answered, column, value, own) for column, value, own in _members(columns)]
    tested = [i for i, each in enumerate(found) if each.p is not None]
    adjusted = dict(zip(tested, holm([found[i].p or 0.0 for i in tested]), strict=True))
    return tuple(each.slice(adjusted.get(i)) for i, each in enumerate(found))


def test_name(answered: Answered) -> str:
    """Which test tells whether a slice is worse, and how many are held apart from chance."""
    return f"{EXACT if answered.exam.right_or_wrong else BY_RANK}, with Holm's correction over all slices"


@dataclass(frozen=True)
class _Raw:
    by: str
    value: str
    rows: int
    metric: Estimate
    merit: float
    rest: float
    p: float | None

    def slice(self, adjusted: float | None) -> Slice:
        worse = adjusted is not None and adjusted < LEVEL
        return Slice(self.by, self.value, self.rows, self.metric, self.merit, self.rest, self.p, adjusted, worse)


def _members(columns: Mapping[str, Sequence[Any]]) -> "Iterator[tuple[str, str, np.ndarray]]":
    """Of each slice its column, its value and [N] bool."""
    import numpy as np

    for column, values in columns.items():
        named, order = _named(values)
        for value in order if len(order) > 1 else ():
            yield column, value, np.array([each == value for each in named])


def _named(values: Sequence[Any]) -> tuple[list[str], list[str]]:
    """Each row's value in words, and the different ones in the order in which they are told."""
    numbers = [_number(value) for value in values]
    known = {number for number in numbers if number is not None}
    are_numbers = all(number is not None or _is_missing(value) for number, value in zip(numbers, values, strict=True))
    if are_numbers and len(known) > NUMBERS_BY_VALUE:
        return _quarters(numbers)
    named = [NOTHING if _is_missing(value) else str(value) for value in values]
    common = [value for value, _ in Counter(named).most_common(MOST_VALUES)]
    kept = set(common)
    named = [value if value in kept else OTHERS for value in named]
    return named, [*common, *([OTHERS] if OTHERS in named and OTHERS not in kept else [])]


def _quarters(numbers: Sequence[float | None]) -> tuple[list[str], list[str]]:
    import numpy as np

    known = np.array([number for number in numbers if number is not None])
    edges = np.unique(np.quantile(known, (0.25, 0.5, 0.75)))
    quarter = np.searchsorted(edges, known, side="left")
    names = {i: f"{known[quarter == i].min():g} to {known[quarter == i].max():g}" for i in np.unique(quarter).tolist()}
    found = iter(quarter.tolist())
    named = [NOTHING if number is None else names[next(found)] for number in numbers]
    return named, [*names.values(), *([NOTHING] if NOTHING in named else [])]


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value)) or not str(value).strip()


def _number(value: Any) -> float | None:
    """Of a csv's text, too; a truth value is none."""
    if isinstance(value, bool) or _is_missing(value):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _raw(answered: Answered, column: str, value: str, own: "np.ndarray") -> _Raw:
    merits = answered.merits
    rest = float(merits[~own].mean())
    count, outside = int(own.sum()), int((~own).sum())
    p = _p_worse(merits, own, answered.exam.right_or_wrong) if min(count, outside) >= FEWEST_ROWS else None
    return _Raw(column, value, count, _metric(answered, own), float(merits[own].mean()), rest, p)


def _metric(answered: Answered, own: "np.ndarray") -> Estimate:
    metric, size = answered.exam.row_metric, answered.outputs.shape[1]
    targets, decisions = answered.targets[own], answered.decisions[own]
    found = resampled(
        lambda draws: {metric: answered.task.resampled(metric, draws, targets, decisions, size)}, len(targets)
    )[metric]
    return Estimate(float(found[0]), *interval(found))


def _p_worse(merits: "np.ndarray", own: "np.ndarray", right_or_wrong: bool) -> float:
    """The chance of so low merits among the slice's rows, were they drawn from all."""
    from scipy.stats import hypergeom, mannwhitneyu

    if right_or_wrong:
        right = merits > 0
        return float(hypergeom.cdf(right[own].sum(), len(merits), right.sum(), own.sum()))
    if (merits == merits[0]).all():
        return 1.0
    return float(mannwhitneyu(merits[own], merits[~own], alternative="less", method="asymptotic").pvalue)
