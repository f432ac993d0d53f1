"""Ray Data's pool of processes that score: how many there are, and what goes in and out."""

import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import ray
import ray.data
from ray import ObjectRef
from ray.data import ActorPoolStrategy

from raylora.cluster.data.prepare import MOST_TASKS
from raylora.cluster.periodic import run_every
from raylora.cluster.placement import Need, WorkerPlan, check_room, one_worker, plan_workers, remote_options
from raylora.cluster.predict.progress import TICK_S, Teller
from raylora.cluster.predict.scorer import PartScorer, Work
from raylora.cluster.session import Cluster
from raylora.config import Job


def pool_of(job: Job, cluster: Cluster) -> WorkerPlan:
    """How many processes score, and on what.

    Raises:
        ClusterError: the cluster has no room for one, or for those that `predict.concurrency` asks for.
    """
    one = plan_workers(one_worker(job.ray), cluster)
    own, each = job.predict.concurrency, one.resources_per_worker
    if own == "auto":
        own = [1, max(cluster.slots(each), 1)]
    fewest, most = own if isinstance(own, list) else (own, own)
    check_room(Need("predict.concurrency", fewest, "ray.resources_per_worker", each), cluster, job.ray)
    return replace(one, num_workers=(fewest, most))


class PoolWorker:
    """What `map_batches` calls: numbers of parts go in, the rows of each come out."""

    def __init__(self, work: "ObjectRef[Work] | Work") -> None:
        self.work: Work = ray.get(work) if isinstance(work, ObjectRef) else work
        self.scorer = PartScorer(self.work)

    def __call__(self, batch: dict[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
        for number in batch["part"]:
            plan = self.work.parts[number]
            self.scorer.score(plan)
            yield {"rows": np.array([plan.rows])}


def run_parts(work: Work, missing: list[int], workers: WorkerPlan, free: int, teller: Teller) -> None:
    """Score these parts; returns when all are there.

    Args:
        free: processes for which there is room now; Ray Data adds others as room comes.
    """
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    most = min(workers.most, len(missing))
    fewest = min(workers.fewest, most)
    pool = ActorPoolStrategy(
        min_size=fewest,
        max_size=most,
        initial_size=min(max(free, fewest), most),
        max_tasks_in_flight_per_actor=1,  # a second would wait there while another process has nothing to do
    )
    numbers = ray.data.from_items([{"part": i} for i in missing], override_num_blocks=min(len(missing), MOST_TASKS))
    marks = numbers.map_batches(
        PoolWorker,  # pyright: ignore[reportArgumentType]
        batch_size=None,
        compute=pool,
        fn_constructor_kwargs={"work": ray.put(work)},
        **remote_options(workers),
    )
    with run_every(TICK_S, teller.tick, "progress", lambda line: None):
        for batch in marks.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=0):
            rows: Any = batch["rows"]
            teller.add(int(rows.sum()))
    teller.tick()
