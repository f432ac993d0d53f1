"""A trial of several workers: Ray Train inside a trial, each epoch reported on to Ray Tune."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray.tune
from ray.tune.integration.ray_train import CHECKPOINT_PATH_KEY, TuneReportCallback

from raylora.cluster.events.history import Event
from raylora.cluster.placement import WorkerPlan, plan_workers
from raylora.cluster.session import Cluster
from raylora.cluster.storage.lock import Held
from raylora.cluster.storage.run_folder import RunFolder
from raylora.cluster.train.workers import Task, global_batch_size, run_workers
from raylora.cluster.tune.pool import leave_for_trainables
from raylora.cluster.tune.pulse import of_one_trial
from raylora.cluster.tune.shared_base import SharedBase
from raylora.cluster.tune.trial_progress import FILE, SCORES, TrialProgress, read_progress
from raylora.config import Job
from raylora.config.space import WHOLE_EPOCHS, from_plain, trial_job
from raylora.errors import RayLoraError, TrainingError
from raylora.leaderboard import describe


def is_nested(job: Job) -> bool:
    """True where each trial has several workers. `auto` is one: a sweep fills the cluster with trials."""
    return isinstance(job.ray.num_workers, list) or (job.ray.num_workers != "auto" and job.ray.num_workers > 1)


@dataclass(frozen=True)
class NestedPlan:
    """`concurrent` trials at once, each on workers of its own."""

    workers: WorkerPlan
    concurrent: int

    def __str__(self) -> str:
        return f"{self.workers.most} workers each"


def plan_nested(job: Job, cluster: Cluster, total: int) -> NestedPlan:
    """As many trials at once as the cluster holds.

    Raises:
        ClusterError: not one trial's workers fit.
    """
    plan = plan_workers(job.ray, cluster)
    needs = plan.resources_per_worker
    held = cluster.free_slots(needs) // plan.most if any(needs.values()) else 1
    wished = job.tune.max_concurrent_trials
    concurrent = min(max(held, 1), total, total if wished == "auto" else wished)
    return NestedPlan(leave_for_trainables(plan), concurrent)


class ScoreCallback(TuneReportCallback):
    """Hands each epoch to Ray Tune with the best so far, and keeps it beside the run for a resumed trial.

    Args:
        tell: takes each report with the best so far.
    """

    def __init__(self, job: Job, progress: TrialProgress, tell: Callable[[Event], None]) -> None:
        super().__init__()
        self.job, self.progress, self.tell, self.start = job, progress, tell, time.perf_counter()

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:
        if "eval_loss" not in metrics[0]:  # a checkpoint within an epoch, as a node will be taken away
            return
        self.progress.add(metrics[0], time.perf_counter() - self.start, packed=1)
        self.start = time.perf_counter()
        if checkpoint:
            self.progress.last[CHECKPOINT_PATH_KEY] = checkpoint.path
        RunFolder(self.job).write_text(FILE, self.progress.seal({})[FILE].decode())
        self.tell(self.progress.last)
        super().after_report(run_context, [{**self.progress.last, SCORES: self.progress.scores}], checkpoint)


@dataclass(frozen=True)
class NestedTrial:
    """What each trial knows of its sweep; called with a sample in the trial's own process."""

    job: Job
    shared_bases: dict[str, SharedBase]
    plan: WorkerPlan
    storage_path: str
    tell: Callable[[Event], None]
    held: Held

    def __call__(self, sample: dict[str, Any]) -> None:
        """Run one trial, from its last checkpoint where there is one.

        Raises:
            TrainingError: the trial failed; the reason.
        """
        trial = str(ray.tune.get_context().get_trial_id())
        own = {"storage_path": self.storage_path, "run_name": trial, **WHOLE_EPOCHS}
        job = trial_job(self.job, from_plain(sample)).replace(own)
        shared = self.shared_bases[job.model.base_model]
        begun = _progress(job, shared)
        own = from_plain(sample)
        tell, item = self.tell, {"kind": "trial", "trial": trial, "words": describe(own), "sample": own}
        for report in begun.reports:
            tell({**item, **report, "again": True})
        rows = global_batch_size(job, self.plan)
        log = of_one_trial(lambda event: tell({"kind": "progress", "worker": trial, **event}))
        task = Task(shared.resolved(job), shared.rows(job), self.plan, rows, log, self.held)
        try:
            run_workers(task, [ScoreCallback(job, begun, lambda report: tell({**item, **report}))])
        except (RayLoraError, TrainingError) as error:
            tell({**item, "kind": "failure", "failure": str(error)})
            raise
        ended = _progress(job, shared)
        if ended.epochs == begun.epochs:  # its last epoch was before a kill, and Ray Tune's state may not know of it
            ray.tune.report({**ended.last, SCORES: ended.scores})


def _progress(job: Job, shared: SharedBase) -> TrialProgress:
    """Of the trial's interrupted run, where there is one."""
    folder = RunFolder(job)
    return read_progress({FILE: folder.read_text(FILE).encode()}) if folder.has(FILE) else shared.begin(job)
