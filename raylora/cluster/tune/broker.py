"""The broker of a sweep: trials are queued here until a worker takes them, and reports and decisions cross here.

A trial, to Ray Tune, is a light trainable process; the workers own the CPUs or the GPU and run many trials each. Plain
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
class TrialRequest:
    """A trial to run. `key` is equal among trials that can be packed together, None where it must run alone.

    Args:
        tree: the trial's job, as `Job.model_dump` gives it.
        slots: how many such trials one worker packs.
        sample: its own settings; `words` says them to people.
        checkpoint: files to go on from.
    """

    trial: str
    tree: dict[str, Any]
    key: str | None
    slots: int
    words: str
    checkpoint: Files | None = None
    sample: dict[str, Any] = field(default_factory=dict)
    attempt_id: str = ""


@dataclass(frozen=True)
class Report:
    """What a worker says of a trial: one evaluation with its checkpoint, or the reason why there will be none.

    `lost`: its worker died, which is a failure of the attempt. `again`: the attempt ends without one, and the trial is
    to be queued anew from its last report.
    """

    metrics: dict[str, Any] = field(default_factory=dict)
    files: Files = field(default_factory=dict)
    finished: bool = False
    failure: str | None = None
    lost: bool = False
    again: bool = False


@dataclass
class _Attempt:
    """An attempt at a trial. `asking`: its trainable waits for the next report, which is also its word to go on."""

    request: TrialRequest
    worker: str | None = None
    asking: bool = False
    gone: bool = False
    reports: "asyncio.Queue[Report]" = field(default_factory=asyncio.Queue)


class _Attempts(dict[str, _Attempt]):
    """By id. One that is not known is of a broker that was killed before this: it is over, and its trainable is told to
    queue the trial anew."""

    def __missing__(self, attempt_id: str) -> _Attempt:
        request = TrialRequest(attempt_id.rpartition("/")[0], {}, key=None, slots=0, words="", attempt_id=attempt_id)
        attempt = self[attempt_id] = _Attempt(request, gone=True)
        attempt.reports.put_nowait(Report(again=True))  # no failure of the trial's
        return attempt


class Broker:
    """Args:
    total: trials of the sweep, as far as known.
    concurrent: trials that Ray Tune runs at once.
    workers: workers that share them.
    """

    def __init__(self, total: int, concurrent: int, workers: int) -> None:
        self.total, self.concurrent, self.workers = total, concurrent, workers
        self.attempts = _Attempts()
        self.born = time.time_ns()  # a broker that is started anew gives other ids
        self.queue: list[_Attempt] = []  # those that may wait for a worker
        self.known: dict[str, int] = {}
        self.verdicts: dict[str, str] = {}
        self.present: set[str] = set()  # workers that have begun to work
        self.new_events: list[dict[str, Any]] = []
        self.closed = False
        self.changed = asyncio.Condition()

    # -- trainables

    async def submit(self, request: TrialRequest) -> str:
        """Queue a trial; returns the id of this attempt at it."""
        number = self.known[request.trial] = self.known.get(request.trial, self.born) + 1
        attempt_id = f"{request.trial}/{number}"
        self.attempts[attempt_id] = _Attempt(replace(request, attempt_id=attempt_id))
        self.queue.append(self.attempts[attempt_id])
        if request.trial in self.verdicts:  # Ray Tune tries errors again; this one would end the same way
            self.attempts[attempt_id].reports.put_nowait(Report(failure=self.verdicts[request.trial]))
            self.attempts[attempt_id].gone = True
        await self._notify()
        return attempt_id

    async def next(self, attempt_id: str) -> Report:
        """The trial's next report; asking for it says that the trial goes on."""
        attempt = self.attempts[attempt_id]
        attempt.asking = True
        await self._notify()
        report = await attempt.reports.get()
        attempt.asking = False
        return report

    async def leave(self, attempt_id: str) -> None:
        """The trial ends here: finished, stopped by the scheduler, paused, or its trainable failed."""
        attempt = self.attempts[attempt_id]
        attempt.gone, attempt.request = (
            True,
            replace(attempt.request, tree={}, checkpoint=None),
        )  # kept for a worker's last word
        await self._notify()

    async def replay(self, request: TrialRequest, reports: list[dict[str, Any]]) -> None:
        """What a trial that goes on reported before, for the driver: a kill may have kept it from telling all."""
        for metrics in reports:
            self._add_event(request, Report({**metrics, "again": True}))

    # -- workers

    async def take(self, worker: str, key: str | None, slots: int, patience_s: float) -> list[TrialRequest] | None:
        """Trials for a worker to run: of one key, or one that runs alone. None when the sweep is over.

        Args:
            key: of the pack that the worker runs, to fill its free slots; None = it is idle.
            slots: free slots; of an idle worker, the most it may take.
            patience_s: how long to wait for more trials than there are. An idle worker waits for the first one as
                long as it takes.
        """
        self.present.add(worker)
        if key is None:
            await self._until(lambda: self.closed or bool(self._waiting(None)), None)
            if self.closed:
                return None
            first = self._waiting(None)[0].request
            if first.key is None:
                return self._hand(worker, self._waiting(None)[:1])
            key, slots = first.key, min(slots, first.slots, math.ceil(self.concurrent / self.workers))
        await self._until(lambda: len(self._waiting(key)) >= min(slots, self._to_come(key)), patience_s)
        return self._hand(worker, self._waiting(key)[:slots])

    async def post(self, reports: dict[str, Report]) -> None:
        """Hand reports to the trainables, by attempt id."""
        for attempt_id, report in reports.items():
            attempt = self.attempts[attempt_id]
            if not attempt.request.slots:
                continue
            if report.failure:
                self.verdicts[attempt.request.trial] = report.failure
            attempt.asking = False
            attempt.reports.put_nowait(report)
            attempt.gone = attempt.gone or report.finished or report.failure is not None
            if report.metrics or report.failure:
                self._add_event(attempt.request, report)

    async def tell(self, event: dict[str, Any]) -> None:
        """What a worker has to say to the driver of the moment; it decides nothing."""
        self.new_events.append(event)

    async def put_back(self, attempt_id: str, request: TrialRequest) -> None:
        """A worker cannot pack this trial after all: it waits to run alone."""
        attempt = self.attempts[attempt_id]
        attempt.worker, attempt.request = None, replace(request, key=None)
        self.queue.append(attempt)
        await self._notify()

    async def decisions(self, attempt_ids: list[str], wait_s: float) -> list[str]:
        """Those of the reported trials that go on. Where a trainable has said nothing after `wait_s`, the attempt ends;
        one that was slow is told so when it asks."""
        attempts = [self.attempts[attempt_id] for attempt_id in attempt_ids]
        await self._until(lambda: all(attempt.asking or attempt.gone for attempt in attempts), wait_s)
        for attempt in attempts:
            if not (attempt.asking or attempt.gone):
                self._end(attempt, Report(again=True))
        return [attempt_id for attempt_id, attempt in zip(attempt_ids, attempts, strict=True) if not attempt.gone]

    async def held(self, worker: str) -> list[str]:
        """The attempts that a worker runs."""
        return [name for name, each in self.attempts.items() if each.worker == worker and not each.gone]

    async def lost(self, worker: str, is_failure: bool) -> None:
        """A worker runs its trials no more: they are tried again, from their last checkpoints.

        Args:
            is_failure: whether that counts against `ray.max_failures`.
        """
        for attempt_id in await self.held(worker):
            self._end(self.attempts[attempt_id], Report(lost=True) if is_failure else Report(again=True))
        await self._notify()

    # -- the driver

    async def events(self) -> list[dict[str, Any]]:
        """Reports since the last call, without their files."""
        items, self.new_events = self.new_events, []
        return items

    async def states(self) -> dict[str, int]:
        """How many trials are queued, run, have ended or failed, each by its last attempt."""
        last = [self.attempts[f"{trial}/{number}"] for trial, number in self.known.items()]
        counts = Counter(self._state(attempt) for attempt in last)
        return {state: counts[state] for state in STATES}

    def _state(self, attempt: _Attempt) -> str:
        if attempt.request.trial in self.verdicts:
            return "failed"
        return "ended" if attempt.gone else "waiting" if attempt.worker is None else "running"

    async def arrived(self) -> int:
        """How many workers have begun to work, lost ones too."""
        return len(self.present)

    async def grow(self, concurrent: int, workers: int) -> None:
        """More workers share more trials at once from now on."""
        self.concurrent, self.workers = concurrent, workers

    async def close(self) -> None:
        self.closed = True
        await self._notify()

    # -- inside

    def _end(self, attempt: _Attempt, last: Report) -> None:
        attempt.gone = True
        attempt.reports.put_nowait(last)

    def _add_event(self, request: TrialRequest, report: Report) -> None:
        kind, said = ("failure", {"failure": report.failure}) if report.failure else ("trial", report.metrics)
        own = {"trial": request.trial, "words": request.words, "sample": request.sample}
        self.new_events.append({"kind": kind, **own, **said})

    def _waiting(self, key: str | None) -> list[_Attempt]:
        self.queue = [attempt for attempt in self.queue if attempt.worker is None and not attempt.gone]
        return [attempt for attempt in self.queue if key is None or attempt.request.key == key]

    def _to_come(self, key: str) -> int:
        """How many trials could be waiting at most: those that are, and of those never seen yet as many as Ray Tune
        starts before another one ends."""
        places = self.concurrent - sum(not attempt.gone for attempt in self.attempts.values())
        return len(self._waiting(key)) + max(0, min(self.total - len(self.known), places))

    def _hand(self, worker: str, attempts: list[_Attempt]) -> list[TrialRequest]:
        requests = [attempt.request for attempt in attempts]
        for attempt in attempts:
            attempt.worker = worker
            attempt.request = replace(attempt.request, checkpoint=None)  # a megabyte a trial, and the worker has it now
        return requests

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
