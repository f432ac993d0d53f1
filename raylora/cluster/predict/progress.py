"""How far a table is: one line that is drawn anew on a terminal, or a line a minute in a log. Knows no ray."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from raylora.records import Say

EVERY_S = 60.0
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


def duration(seconds: float) -> str:
    """In the two largest units."""
    whole = round(seconds)
    for unit, size, below, smaller in (("d", 86_400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // smaller} {below}"
    return f"{whole} s"


class Teller:
    """Says how far the work is when it is asked to, by `tick`: on a terminal each time, else once a minute.

    Args:
        live: draws a line in place of the one before; None where there is no terminal.
    """

    def __init__(
        self,
        rows: int,
        before: int,
        say: Say,
        live: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rows, self._before, self._done = rows, before, before
        self._say, self._live, self._clock = say, live, clock
        self._start = self._said = clock()

    def add(self, rows: int) -> None:
        self._done += rows

    def now(self) -> Progress:
        return Progress(self._done, self._rows, self._before, self._clock() - self._start)

    def tick(self) -> None:
        if self._live:
            self._live(str(self.now()))
        elif self._clock() - self._said >= EVERY_S:
            self._said = self._clock()
            self._say(f"progress   {self.now()}")
