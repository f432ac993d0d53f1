"""Two adapters on the same rows: is the difference real, and how many rows would settle it?"""

from collections.abc import Sequence
from itertools import combinations
from math import ceil, sqrt
from typing import TYPE_CHECKING

from raylora.evaluation.answered import Answered
from raylora.evaluation.holm import LEVEL, holm
from raylora.evaluation.record import Comparison, Estimate, McNemar
from raylora.metrics import greater_is_better
from raylora.resampling import interval

if TYPE_CHECKING:
    import numpy as np

POWER = 0.8
BY_ROWS = "McNemar's exact test"
BY_RESAMPLES = "paired bootstrap"
CONNOR = "Connor 1987, for McNemar's test"
NORMAL = "normal approximation of the paired bootstrap's standard error"


def comparisons(adapters: Sequence[Answered], metric: str) -> tuple[Comparison, ...]:
    """Of each pair, in order.

    Args:
        adapters: on the same rows.
        metric: by which it is decided whether a difference is real.
    """
    pairs = list(combinations(adapters, 2))
    tests = [_p_value(first, second, metric) for first, second in pairs]
    adjusted = holm(tests)
    return tuple(
        _comparison(first, second, metric, p, p_adjusted)
        for (first, second), p, p_adjusted in zip(pairs, tests, adjusted, strict=True)
    )


def mcnemar(first: "np.ndarray", second: "np.ndarray") -> McNemar:
    """Args:
    first, second: [N] bool, whether each is right.
    """
    from scipy.stats import binomtest

    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    apart = only_first + only_second
    p = float(binomtest(only_first, apart, 0.5).pvalue) if apart else 1.0
    return McNemar(only_first, only_second, p)


def rows_of_mcnemar(rows: int, found: McNemar) -> int | None:
    """Rows like these on which the test would show a difference of this size 4 times in 5 (Connor 1987, eq. 3)."""
    from scipy.stats import norm

    apart = (found.only_first + found.only_second) / rows
    gap = abs(found.only_first - found.only_second) / rows
    if not gap:
        return None
    level, power = norm.ppf(1 - LEVEL / 2), norm.ppf(POWER)
    return ceil((level * sqrt(apart) + power * sqrt(max(apart - gap**2, 0.0))) ** 2 / gap**2)


def rows_of_bootstrap(rows: int, merits: "np.ndarray") -> int | None:
    """The same by the spread of a difference over resamples, which falls with the root of the rows.

    Args:
        merits: [1 + R] the difference over the rows, and over each resample.
    """
    import numpy as np
    from scipy.stats import norm

    gap, error = abs(float(merits[0])), float(np.nanstd(merits[1:]))
    if not gap or not error > 0:
        return None
    return ceil(rows * (float(norm.ppf(1 - LEVEL / 2) + norm.ppf(POWER)) * error / gap) ** 2)


def _merits(first: Answered, second: Answered, metric: str) -> "np.ndarray":
    """[1 + R] how much better the second is, over the rows and over each resample of them."""
    sign = 1 if greater_is_better(metric) else -1
    return sign * (second.resampled[metric] - first.resampled[metric])


def _is_by_rows(first: Answered, metric: str) -> bool:
    return first.exam.right_or_wrong and metric == first.exam.row_metric


def _mcnemar(first: Answered, second: Answered) -> McNemar | None:
    return mcnemar(first.merits > 0, second.merits > 0) if first.exam.right_or_wrong else None


def _p_value(first: Answered, second: Answered, metric: str) -> float:
    """Two-sided."""
    import numpy as np

    found = _mcnemar(first, second)
    if found and _is_by_rows(first, metric):
        return found.p
    merits = _merits(first, second, metric)[1:]
    known = merits[~np.isnan(merits)]
    tail = min((known <= 0).sum(), (known >= 0).sum()) + 1
    return float(min(1.0, 2 * tail / (len(known) + 1)))


def _comparison(first: Answered, second: Answered, metric: str, p: float, p_adjusted: float) -> Comparison:
    shared = [name for name in first.resampled if name in second.resampled]
    differences = {name: _difference(_merits(first, second, name)) for name in shared}
    by_rows, found, rows = _is_by_rows(first, metric), _mcnemar(first, second), len(first.targets)
    needed = (
        rows_of_mcnemar(rows, found) if found and by_rows else rows_of_bootstrap(rows, _merits(first, second, metric))
    )
    test, power_method = (BY_ROWS, CONNOR) if by_rows else (BY_RESAMPLES, NORMAL)
    words = _words(first.name, second.name, metric, differences[metric], test, p_adjusted, needed, rows)
    return Comparison(
        first=first.name,
        second=second.name,
        rows=rows,
        metric=metric,
        differences=differences,
        mcnemar=found,
        test=test,
        p=p,
        p_adjusted=p_adjusted,
        real=p_adjusted < LEVEL,
        rows_needed=needed,
        power_method=power_method,
        words=words,
    )


def _difference(merits: "np.ndarray") -> Estimate:
    return Estimate(float(merits[0]), *interval(merits))


def _words(
    first: str, second: str, metric: str, gap: Estimate, test: str, p: float, needed: int | None, rows: int
) -> str:
    better, worse = (second, first) if gap.value > 0 else (first, second)
    low, high = (gap.low, gap.high) if gap.value > 0 else (-gap.high, -gap.low)
    size = f"by {abs(gap.value):.4f} of {metric} (95 % interval {low:+.4f} to {high:+.4f}; {test}, p = {p:.2g})"
    if needed is None:
        return f"{first} and {second} are alike in {metric} on these {rows:,} rows: no number of them would part them."
    if p < LEVEL:
        return f"{better} is better than {worse} {size}: the difference is real."
    enough = f"about {needed:,} rows like these would settle a difference of this size"
    return f"{better} is ahead of {worse} {size}, which may be chance: {enough} 4 times in 5."
