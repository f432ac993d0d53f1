"""How far a table is: one line that is drawn anew on a terminal, or a line a minute in a log. Knows no ray."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from raylora.cluster.events.stream import Pace, duration
from raylora.records import Say

TICK_S = 1.0


@dataclass(frozen=True)
class Progress:
    """`before` of the rows were scored by an earlier start; `seconds` are this one's."""

    done: int
    rows: int
    before: int
    seconds: float

    @property
    def rate(self) -> float:
        """Rows a second of this start; 0 where none is scored yet."""
        return (self.done - self.before) / self.seconds if self.seconds > 0 else 0.0

    def __str__(self) -> str:
        line = f"{self.done:,} of {self.rows:,} rows ({100 * self.done / max(self.rows, 1):.0f} %)"
        if not self.rate:
            return line
        left = (self.rows - self.done) / self.rate
        return f"{line}, {self.rate:,.0f} rows/s" + (f", {duration(left)} left" if left else "")


class Teller:
    """Says how far the work is when it is asked to, by `tick`: on a terminal each time, else once a minute."""

    def __init__(self, rows: int, before: int, say: Say, clock: Callable[[], float] = time.monotonic) -> None:
        self._rows, self._before, self._done = rows, before, before
        self._pace, self._clock = Pace(say, clock), clock
        self._start = clock()

    def add(self, rows: int) -> None:
        self._done += rows

    def now(self) -> Progress:
        return Progress(self._done, self._rows, self._before, self._clock() - self._start)

    def tick(self) -> None:
        self._pace.tell(f"progress   {self.now()}")
