"""What an adapter says of texts, with how far it is where that takes long."""

import time
from collections.abc import Callable, Sequence

import numpy as np

from raylora.evaluation.traits import Text
from raylora.model.predictor import Predictor
from raylora.records import Say

ROWS_AT_ONCE = 1024
SECONDS_BETWEEN_LINES = 15.0


class Progress:
    """A line every 15 seconds: rows done of all, rows a second, and about how long it still takes."""

    def __init__(self, say: Say, rows: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._say, self._rows, self._clock = say, rows, clock
        self._done, self._start = 0, clock()
        self._said = self._start

    def add(self, rows: int, what: str) -> None:
        self._done += rows
        now = self._clock()
        if now - self._said < SECONDS_BETWEEN_LINES or self._done >= self._rows:
            return
        self._said, rate = now, self._done / (now - self._start)
        left = (self._rows - self._done) / rate
        self._say(f"evaluate   {what}: {self._done:,} of {self._rows:,} rows, {rate:,.0f} rows/s, {left:,.0f} s left")


def logits_of(predictor: Predictor, texts: Sequence[Text], progress: Progress, what: str) -> np.ndarray:
    """[N, C] float32."""
    parts: list[np.ndarray] = []
    for start in range(0, len(texts), ROWS_AT_ONCE):
        some = texts[start : start + ROWS_AT_ONCE]
        parts.append(predictor.logits(some))
        progress.add(len(some), what)
    return np.concatenate(parts)
