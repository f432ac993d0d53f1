"""A sweep grows: workers join as nodes come, or as others leave what they held, while there are trials for them."""

import math
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import ray

from raylora.cluster.periodic import run_every
from raylora.cluster.session import Cluster, look
from raylora.cluster.tune.pool import TRAINABLE, TRAINABLES_SHARE, PoolPlan, WorkerPool
from raylora.records import Say

LOOK_S = 10.0


class Growth:
    """Args:
    pool: its workers are added to.
    searcher: of Ray Tune, which starts `max_concurrent` trials at once; None of a sweep that goes on: Ray Tune has
        brought back its own, with its first number.
    now: the cluster as it is.
    """

    def __init__(self, pool: WorkerPool, searcher: Any, now: Callable[[], Cluster], say: Say) -> None:
        self.pool, self.searcher, self.now, self.say = pool, searcher, now, say
        self.started, self.concurrent = pool.plan.count, pool.plan.concurrent

    def look(self) -> None:
        """Add the workers that there is room for and that have a trial to run, once all others are at work."""
        broker, plan = self.pool.broker, self.pool.plan
        arrived: int = ray.get(broker.arrived.remote())
        if arrived < self.started:
            return
        count = len(self.pool.runs)
        more = more_workers(plan, count, room(plan, count, self.concurrent, self.now()), self._left())
        if not more:
            return
        self.started += more
        self.concurrent = min(max(self.concurrent, (count + more) * plan.each), plan.most)
        ray.get(broker.grow.remote(self.concurrent, count + more))
        if self.searcher is not None:
            self.searcher.max_concurrent = self.concurrent
        self.pool.add_workers(more)
        self.say(f"workers    {count} -> {count + more}, {self.concurrent} trials at once: there is room for more")

    def _left(self) -> int:
        """Trials that could run: those that are queued or run, and, where more may be started, those to come."""
        states: dict[str, int] = ray.get(self.pool.broker.states.remote())
        begun = states["waiting"] + states["running"]
        return begun if self.searcher is None else begun + self.pool.total - sum(states.values())


def room(plan: PoolPlan, count: int, concurrent: int, cluster: Cluster) -> int:
    """How many workers fit beside `count`, which leave a part of their CPUs to the trials' own processes."""
    left = count * TRAINABLES_SHARE - concurrent * TRAINABLE
    free = {name: amount - left if name == "CPU" else amount for name, amount in (cluster.free or {}).items()}
    return replace(cluster, free=free).free_slots(plan.workers.resources_per_worker)


def more_workers(plan: PoolPlan, count: int, free: int, left: int) -> int:
    """How many may join `count` workers where `free` fit, with so many trials `left`: none that had no trial to run."""
    return max(0, min(free, math.ceil(min(left, plan.most) / plan.each) - count))


@contextmanager
def growing(pool: WorkerPool, searcher: Any, cluster: Cluster, say: Say) -> Generator[None]:
    """While the `with` is open, the pool grows; one that has all cores of its machine never does."""
    if pool.plan.most <= pool.plan.count * pool.plan.each or not any(pool.plan.workers.resources_per_worker.values()):
        yield
        return
    growth = Growth(pool, searcher, lambda: look(cluster), say)
    with run_every(LOOK_S, growth.look, "growth", say):
        yield
