"""The workers of a sweep and their broker: how many, on what; started, watched, replaced, and stopped at the end."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.exceptions import OutOfMemoryError, RayActorError, RayError

from raylora.cluster.events.stream import Consumer
from raylora.cluster.periodic import never_failing, run_every
from raylora.cluster.placement import WorkerPlan, remote_options
from raylora.cluster.session import Cluster, beside_driver
from raylora.cluster.storage.run_folder import RunFolder
from raylora.cluster.tune.broker import Broker
from raylora.cluster.tune.events import SweepEvents
from raylora.cluster.tune.policy import pack_slots
from raylora.cluster.tune.shared_base import SharedBase
from raylora.cluster.tune.worker import NO_LIMIT, SweepTask, TrialWorker
from raylora.config import Job
from raylora.records import Say

TRAINABLE = 0.001  # CPUs of a trial's own process
TRAINABLES_SHARE = 0.1  # CPUs of each worker's share: room for a hundred of them


@dataclass(frozen=True)
class PoolPlan:
    """`count` workers, each as `workers` says, and so many trials at once over all of them.

    Args:
        each: trials that one of them packs.
        most: trials that could run at once, if the cluster had room for all workers they need.
    """

    workers: WorkerPlan
    count: int
    concurrent: int
    each: int = 1
    most: int = 0

    def __str__(self) -> str:
        threads = self.workers.threads
        of = "a GPU" if self.workers.use_gpu else f"{threads} thread{'s' * (threads != 1)}"
        return f"{self.count} worker{'s' * (self.count != 1)} of {of}"


def plan_pool(job: Job, cluster: Cluster, one: WorkerPlan, total: int, width: float) -> PoolPlan:
    """As many workers as the cluster holds and the trials need.

    Args:
        one: a worker.
        total: trials of the sweep.
        width: tokens of a long row (the 90th percentile), by which a pack is sized.
    """
    alone = cluster.own and not one.use_gpu  # its threads are all cores already
    needs = one.resources_per_worker
    count = max(1, cluster.free_slots(needs)) if any(needs.values()) and not alone else 1
    each = pack_slots(job, width, one.use_gpu)
    most = count * each if job.tune.max_concurrent_trials == "auto" else job.tune.max_concurrent_trials
    concurrent = min(most, total)
    could = concurrent if alone or job.tune.max_concurrent_trials != "auto" else total
    return PoolPlan(one, min(count, concurrent), concurrent, each, could)


def leave_for_trainables(plan: WorkerPlan) -> WorkerPlan:
    """The plan with a sliver less CPU a worker: with every CPU given to workers, the trials' own processes, which
    want next to nothing each, would wait for ever."""
    needs = dict(plan.resources_per_worker)
    if needs.get("CPU"):
        needs["CPU"] = max(needs["CPU"] - TRAINABLES_SHARE, 0.01)
    return replace(plan, resources_per_worker=needs)


@dataclass(frozen=True)
class _Running:
    """A worker: `most` is how many trials it may pack. Ray ends an actor that nobody holds."""

    name: str
    actor: Any
    most: int


class WorkerPool:
    """Workers at work while the `with` is open; yields the broker that trials are queued at."""

    def __init__(
        self,
        job: Job,
        plan: PoolPlan,
        total: int,
        shared_bases: dict[str, SharedBase],
        folder: RunFolder,
        say: Say,
        more: Sequence[Consumer] = (),
    ) -> None:
        self.plan, self.total, self.say = plan, total, say
        self.broker: Any = ray.remote(**beside_driver())(Broker).remote(total, plan.concurrent, plan.count)
        self.task = SweepTask(shared_bases, plan.workers, self.broker)
        self.runs: dict[Any, _Running] = {}
        self.started = 0
        self.events = SweepEvents(job, folder, say, more)
        self.watching = ExitStack()

    def __enter__(self) -> Any:
        for _ in range(self.plan.count):
            self._start_worker()
        self.watching.callback(self._end)
        self.watching.enter_context(self.events.kept())
        drain = never_failing(self._drain, "progress", self.say)
        self.watching.callback(drain)  # to the last event
        self.watching.enter_context(run_every(0.5, drain, "progress", self.say))
        self.watching.enter_context(run_every(0.5, self._watch, "workers", self.say))
        return self.broker

    def __exit__(self, *_: Any) -> None:
        self.watching.close()

    def _end(self) -> None:
        ray.get(self.broker.close.remote())
        ray.wait(list(self.runs), num_returns=len(self.runs), timeout=2)
        # after a time budget a worker is in the middle of an epoch
        for actor in [*(each.actor for each in self.runs.values()), self.broker]:
            ray.kill(actor)

    def add_workers(self, count: int) -> None:
        for _ in range(count):
            self._start_worker()

    def _start_worker(self, most: int = NO_LIMIT) -> None:
        options = remote_options(leave_for_trainables(self.plan.workers))
        self.started += 1
        name = f"worker {self.started}"
        actor: Any = ray.remote(TrialWorker).options(**options).remote(name, self.task, most)
        self.runs[actor.run.remote()] = _Running(name, actor, most)

    def _watch(self) -> None:
        ended, _ = ray.wait(list(self.runs), timeout=0)
        for run in ended:
            self._replace(run)

    def _replace(self, run: Any) -> None:
        """Another worker for one that ended before the sweep; the trials of the first are tried again."""
        worker = self.runs[run]
        loss = _loss(run)
        held = len(ray.get(self.broker.held.remote(worker.name)))
        ray.kill(worker.actor)  # one whose `run` raised is alive, and holds its CPUs or its GPU
        ray.get(self.broker.lost.remote(worker.name, is_failure(loss, held)))
        self._start_worker(held // 2 if is_too_large(loss, held) else worker.most)
        del self.runs[run]
        last = str(loss).strip().splitlines()[-1]  # Ray's text for a dead process goes on for a paragraph
        self.say(f"warning    {worker.name} was lost: {last[:200]}")

    def _drain(self) -> None:
        self.events.add(ray.get(self.broker.events.remote()))
        self.events.states(ray.get(self.broker.states.remote()), self.total)


def is_failure(loss: RayError | None, held: int) -> bool:
    """Whether the loss of a worker that ran so many trials counts against `ray.max_failures`."""
    is_preempted = isinstance(loss, RayActorError) and loss.preempted
    return not (is_preempted or is_too_large(loss, held))


def is_too_large(loss: RayError | None, held: int) -> bool:
    """Whether half as many trials may have room: Ray ends a process where the machine's memory runs out."""
    return isinstance(loss, OutOfMemoryError) and held > 1


def _loss(run: Any) -> RayError | None:
    """Why a worker's `run` ended."""
    try:
        ray.get(run)
    except RayError as error:
        return error
    return None
