"""The bootstrap (Efron & Tibshirani 1993, ch. 13): always the same resamples of as many rows.

So two on the same rows are compared in pairs.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

RESAMPLES = 1000
CELLS_AT_ONCE = 2**20  # of draws, 8 MB: larger ones leave the cache and take three times as long
ENDS = (0.025, 0.975)


def draws(rows: int) -> "Iterator[np.ndarray]":
    """[R, N] float64 how often each row is in each resample, some resamples at a time; the first is the rows
    themselves."""
    import numpy as np

    random = np.random.default_rng(0)
    yield np.ones((1, rows))
    size = max(1, CELLS_AT_ONCE // rows)
    for start in range(0, RESAMPLES, size):
        count = min(size, RESAMPLES - start)
        places = random.integers(0, rows, (count, rows)) + rows * np.arange(count)[:, None]
        # a fifth of the time of a multinomial's
        yield np.bincount(places.ravel(), minlength=count * rows).reshape(count, rows).astype(float)


def resampled(values_of: "Callable[[np.ndarray], Mapping[str, np.ndarray]]", rows: int) -> "dict[str, np.ndarray]":
    """[1 + RESAMPLES] of each name: its value over the rows themselves, and over each resample.

    Args:
        values_of: by name [R] for draws [R, N].
    """
    import numpy as np

    parts = [values_of(some) for some in draws(rows)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def interval(values: "np.ndarray") -> tuple[float, float]:
    """The ends of the 95 % percentile interval of `resampled` values; NaN where they are known of no resample."""
    import numpy as np

    known = values[1:][~np.isnan(values[1:])]
    low, high = np.quantile(known, ENDS) if len(known) else (np.nan, np.nan)
    return float(low), float(high)
