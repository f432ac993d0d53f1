"""The board of a sweep: trials hang on it until a worker takes them, and reports and decisions cross on it.

A trial, to Ray Tune, is a light proxy process; the workers own the CPUs or the GPU and run many trials each. Plain
asyncio, no Ray: the sweep runs it as an actor, the tests as it is.
"""

import asyncio
import math
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

from raylora.cluster.tune.checkpoints import Files

STATES = ("waiting", "running", "ended", "failed")


@dataclass(frozen=True)
class Offer:
    """A trial to run. `key` is equal among trials that can be packed together, None where it must run alone.

    Args:
        tree: the trial's job, as `Job.model_dump` gives it.
        places: how many such trials one worker packs.
        words: its sample, for people.
        checkpoint: files to go on from.
    """

    trial: str
    tree: dict[str, Any]
    key: str | None
    places: int
    words: str
    checkpoint: Files | None = None
    ticket: str = ""


@dataclass(frozen=True)
class Report:
    """What a worker says of a trial: one evaluation with its checkpoint, or the reason why there will be none."""

    metrics: dict[str, Any] = field(default_factory=dict)
    files: Files = field(default_factory=dict)
    finished: bool = False
    failure: str | None = None
    lost: bool = False


@dataclass
class _Seat:
    """One attempt at a trial. `asking`: its proxy waits for the next report, which is also its word to go on."""

    offer: Offer
    worker: str | None = None
    asking: bool = False
    gone: bool = False
    reports: "asyncio.Queue[Report]" = field(default_factory=asyncio.Queue)


class Board:
    """Args:
    total: trials of the sweep, as far as known.
    concurrent: trials that Ray Tune runs at once.
    workers: workers that share them.
    """

    def __init__(self, total: int, concurrent: int, workers: int) -> None:
        self.total, self.concurrent, self.workers = total, concurrent, workers
        self.seats: dict[str, _Seat] = {}
        self.hung: list[_Seat] = []  # those that may wait for a worker
        self.known: dict[str, int] = {}
        self.verdicts: dict[str, str] = {}
        self.news_items: list[dict[str, Any]] = []
        self.closed = False
        self.changed = asyncio.Condition()

    # -- proxies

    async def submit(self, offer: Offer) -> str:
        """Hang a trial up; returns the ticket of this attempt."""
        attempt = self.known[offer.trial] = self.known.get(offer.trial, 0) + 1
        ticket = f"{offer.trial}/{attempt}"
        self.seats[ticket] = _Seat(replace(offer, ticket=ticket))
        self.hung.append(self.seats[ticket])
        if offer.trial in self.verdicts:  # Ray Tune tries errors again; this one would end the same way
            self.seats[ticket].reports.put_nowait(Report(failure=self.verdicts[offer.trial]))
            self.seats[ticket].gone = True
        await self._notify()
        return ticket

    async def next(self, ticket: str) -> Report:
        """The trial's next report; asking for it says that the trial goes on."""
        seat = self.seats[ticket]
        seat.asking = True
        await self._notify()
        report = await seat.reports.get()
        seat.asking = False
        return report

    async def leave(self, ticket: str) -> None:
        """The trial ends here: finished, stopped by the scheduler, paused, or its proxy failed."""
        seat = self.seats[ticket]
        seat.gone, seat.offer = True, replace(seat.offer, tree={}, checkpoint=None)  # kept for a worker's last word
        await self._notify()

    async def tell(self, offer: Offer, reports: list[dict[str, Any]]) -> None:
        """What a trial that goes on reported before, for the driver: a kill may have kept it from telling all."""
        for metrics in reports:
            self._add_news(offer, Report({**metrics, "again": True}))

    # -- workers

    async def take(self, worker: str, key: str | None, room: int, patience_s: float) -> list[Offer] | None:
        """Trials for a worker to run: of one key, or one that runs alone. None when the sweep is over.

        Args:
            key: of the pack that the worker runs, to fill its free places; None = it is idle.
            room: free places; of an idle worker, the most it may take.
            patience_s: how long to wait for more trials than there are. An idle worker waits for the first one as
                long as it takes.
        """
        if key is None:
            await self._until(lambda: self.closed or bool(self._waiting(None)), None)
            if self.closed:
                return None
            first = self._waiting(None)[0].offer
            if first.key is None:
                return self._hand(worker, self._waiting(None)[:1])
            key, room = first.key, min(room, first.places, math.ceil(self.concurrent / self.workers))
        await self._until(lambda: len(self._waiting(key)) >= min(room, self._to_come(key)), patience_s)
        return self._hand(worker, self._waiting(key)[:room])

    async def post(self, reports: dict[str, Report]) -> None:
        """Hand reports to the proxies, by ticket."""
        for ticket, report in reports.items():
            seat = self.seats[ticket]
            if report.failure:
                self.verdicts[seat.offer.trial] = report.failure
            seat.asking = False
            seat.reports.put_nowait(report)
            seat.gone = seat.gone or report.finished or report.failure is not None
            if report.metrics or report.failure:
                self._add_news(seat.offer, report)

    async def put_back(self, ticket: str, offer: Offer) -> None:
        """A worker cannot pack this trial after all: it waits to run alone."""
        seat = self.seats[ticket]
        seat.worker, seat.offer = None, replace(offer, key=None)
        self.hung.append(seat)
        await self._notify()

    async def decisions(self, tickets: list[str], wait_s: float) -> list[str]:
        """Those of the reported trials that go on; a proxy that has said nothing after `wait_s` is gone."""
        seats = [self.seats[ticket] for ticket in tickets]
        await self._until(lambda: all(seat.asking or seat.gone for seat in seats), wait_s)
        for seat in seats:
            seat.gone = seat.gone or not seat.asking
        return [ticket for ticket, seat in zip(tickets, seats, strict=True) if not seat.gone]

    # -- the driver

    async def lost(self, worker: str) -> None:
        """A worker is dead: its trials are tried again, from their last checkpoints."""
        for seat in self.seats.values():
            if seat.worker == worker and not seat.gone:
                seat.gone = True
                seat.reports.put_nowait(Report(lost=True))
        await self._notify()

    async def news(self) -> list[dict[str, Any]]:
        """Reports since the last call, without their files."""
        items, self.news_items = self.news_items, []
        return items

    async def states(self) -> dict[str, int]:
        """How many trials hang here, run, have ended or failed, each by its last attempt."""
        last = [self.seats[f"{trial}/{attempt}"] for trial, attempt in self.known.items()]
        counts = Counter(self._state(seat) for seat in last)
        return {state: counts[state] for state in STATES}

    def _state(self, seat: _Seat) -> str:
        if seat.offer.trial in self.verdicts:
            return "failed"
        return "ended" if seat.gone else "waiting" if seat.worker is None else "running"

    async def close(self) -> None:
        self.closed = True
        await self._notify()

    # -- inside

    def _add_news(self, offer: Offer, report: Report) -> None:
        item = {"trial": offer.trial, "words": offer.words, "failure": report.failure}
        self.news_items.append({**item, **report.metrics})

    def _waiting(self, key: str | None) -> list[_Seat]:
        self.hung = [seat for seat in self.hung if seat.worker is None and not seat.gone]
        return [seat for seat in self.hung if key is None or seat.offer.key == key]

    def _to_come(self, key: str) -> int:
        """How many trials could be waiting at most: those that are, and those never seen yet."""
        return len(self._waiting(key)) + max(0, self.total - len(self.known))

    def _hand(self, worker: str, seats: list[_Seat]) -> list[Offer]:
        offers = [seat.offer for seat in seats]
        for seat in seats:
            seat.worker = worker
            seat.offer = replace(seat.offer, checkpoint=None)  # a megabyte a trial, and the worker has it now
        return offers

    async def _notify(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    async def _until(self, condition: Any, wait_s: float | None) -> None:
        deadline = None if wait_s is None else time.monotonic() + wait_s
        async with self.changed:
            while not condition() and (deadline is None or time.monotonic() < deadline):
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                try:
                    await asyncio.wait_for(self.changed.wait(), left)
                except TimeoutError:
                    return
