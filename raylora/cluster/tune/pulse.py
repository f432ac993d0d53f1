"""How far the workers of a sweep are within an epoch."""

import time
from collections.abc import Callable, Sequence

from raylora.cluster.events.history import Event

TOLD_S = 2.0  # between two that a worker tells: a line on a terminal is drawn over as often
FORGOTTEN_S = 10.0  # a worker that says nothing for so long has ended its epoch


class Pulse:
    """Tells how far an epoch of a pack is; called after each step with the share that is done.

    Args:
        rows: of an epoch, of each trial.
    """

    def __init__(
        self, tell: Callable[[Event], None], trials: int, rows: int, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.tell, self.trials, self.rows, self.clock = tell, trials, rows, clock
        self.start = self.told = clock()

    def __call__(self, share: float) -> None:
        now = self.clock()
        if now - self.told < TOLD_S or share >= 1:
            return
        self.told, taken = now, now - self.start
        rate, left = self.trials * self.rows * share / taken, taken / share * (1 - share)
        self.tell({"trials": self.trials, "share": share, "rows_per_s": rate, "left_s": left})


def of_one_trial(tell: Callable[[Event], None]) -> Callable[[Event], None]:
    """A `log` for a `fit` that is one trial: how far its epoch is goes on, losses of single steps do not."""

    def log(event: Event) -> None:
        if event["kind"] == "progress":
            place = {"share": event["epoch"] % 1, "left_s": event["epoch_left_s"]}
            tell({"trials": 1, "rows_per_s": event["rows_per_s"], **place})

    return log


class Underway:
    """What all workers are at, in one event: their rates added, their shares averaged, the longest way to go.

    `ended` is said behind it.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock, self.ended = clock, ""
        self.last: dict[str, tuple[float, Event]] = {}

    def of(self, events: Sequence[Event]) -> list[Event]:
        """One event of what these and the workers' last ones say; none where they are none."""
        now = self.clock()
        self.last |= {event["worker"]: (now, event) for event in events}
        self.last = {name: (at, event) for name, (at, event) in self.last.items() if now - at <= FORGOTTEN_S}
        return [self._sum([event for _, event in self.last.values()])] if events else []

    def _sum(self, told: list[Event]) -> Event:
        trials = sum(event["trials"] for event in told)
        return {
            "kind": "progress",
            "trials": trials,
            "share": sum(event["share"] * event["trials"] for event in told) / trials,
            "rows_per_s": sum(event["rows_per_s"] for event in told),
            "left_s": max(event["left_s"] for event in told),
            "ended": self.ended,
        }
