"""Texts beside all others, by features that a frozen base gives: which nearly say the same, which stand apart."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

MOST_ROWS = 50_000  # that are compared: 2 minutes on two cores
NEIGHBOURS = 10  # whose mean distance says how far a text is from all others (Kuan & Mueller 2022, sec. 3)
NEAR = 0.97  # cosine of two texts that nearly say the same
FAR = 3.0  # deviations above the mean distance
CHUNK = 1024  # rows whose distances to all others are held at a time


@dataclass(frozen=True)
class Neighbours:
    """What a text's features say of it beside all others.

    Args:
        twin: [N] the nearest row that carries another label, where their cosine is at least `NEAR`; else -1.
        cosine: [N] with it; 0 where there is none.
        distance: [N] mean distance, 1 - cosine, to the nearest rows.
        is_far: [N] bool, `FAR` deviations above the mean distance.
    """

    twin: "np.ndarray"
    cosine: "np.ndarray"
    distance: "np.ndarray"
    is_far: "np.ndarray"


def neighbours(features: "np.ndarray", groups: "np.ndarray") -> Neighbours:
    """Compare all rows with all others, some at a time: N * N * F multiplications.

    Args:
        features: [N, F] of texts.
        groups: [N] what labels come to; rows of one are no twins.
    """
    import numpy as np

    unit = features.astype(np.float32)
    unit = unit / np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    rows = len(unit)
    twin, cosine, distance = np.full(rows, -1), np.zeros(rows), np.zeros(rows)
    for places, near in _cosines(unit):
        nearest = np.partition(near, -min(NEIGHBOURS, rows - 1), axis=1)[:, -min(NEIGHBOURS, rows - 1) :]
        distance[places] = 1 - nearest.mean(axis=1)
        others = np.where(groups[None, :] == groups[places, None], -2.0, near)
        best = others.argmax(axis=1)
        is_near = others[np.arange(len(places)), best] >= NEAR
        twin[places] = np.where(is_near, best, -1)
        cosine[places] = np.where(is_near, others[np.arange(len(places)), best], 0.0)
    return Neighbours(twin, cosine, distance, distance > distance.mean() + FAR * distance.std())


def _cosines(unit: "np.ndarray") -> Iterator[tuple["np.ndarray", "np.ndarray"]]:
    """Some rows' places and their cosines with all rows, their own left out."""
    import numpy as np

    for start in range(0, len(unit), CHUNK):
        places = np.arange(start, min(start + CHUNK, len(unit)))
        near = unit[places] @ unit.T
        near[np.arange(len(places)), places] = -2.0
        yield places, near
