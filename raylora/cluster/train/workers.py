"""A run on Ray Train's workers: what travels to them, and what each of them does."""

import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray.train
from ray.train import Checkpoint, CheckpointConfig, FailureConfig, RunConfig, ScalingConfig, UserCallback
from ray.train.torch import TorchTrainer

from raylora.cluster.data.dataset import Dataset
from raylora.cluster.events.history import Event
from raylora.cluster.placement import WorkerPlan
from raylora.cluster.storage.filesystem import is_full
from raylora.cluster.storage.lock import Held
from raylora.cluster.storage.run_folder import ADAPTER, CHECKPOINT, MAKE_ROOM, RunFolder
from raylora.cluster.train.for_good import StopForGood
from raylora.config import Job
from raylora.errors import FullDiskError, RayLoraError, TrainingError
from raylora.model.fit.fit import FitResult, fit
from raylora.model.fit.splits import Worker
from raylora.model.resolved import ResolvedJob
from raylora.model.threads import run_in_thread


@dataclass(frozen=True)
class Task:
    """All that one worker needs, as it travels through Ray Train. `held` is the lock of the run, or of its sweep."""

    resolved: ResolvedJob
    dataset: Dataset
    plan: WorkerPlan
    global_batch_size: int
    log: Callable[[Event], None]
    held: Held


def run_workers(task: Task, callbacks: Sequence[UserCallback] = ()) -> dict[str, Any]:
    """Rank 0's outcome of a run on Ray Train's workers, from its last checkpoint where there is one.

    Raises:
        TrainingError: the run failed.
        RayLoraError: so it would whenever it is tried: a disk is full, a base is not the one it was, another job has
            taken the run over.
    """
    job, plan = task.resolved.job, task.plan
    folder = RunFolder(job)

    def loop() -> dict[str, Any] | TrainingError:
        return work(task)

    trainer = TorchTrainer(
        loop,  # not by train_loop_config: Ray Train's controller opens that, and would import all that workers do
        scaling_config=ScalingConfig(
            num_workers=plan.num_workers, use_gpu=plan.use_gpu, resources_per_worker=plan.resources_per_worker
        ),
        run_config=RunConfig(
            name=folder.name,
            storage_path=folder.root,
            storage_filesystem=folder.filesystem,
            checkpoint_config=CheckpointConfig(num_to_keep=2),
            failure_config=FailureConfig(max_failures=job.ray.max_failures),
            callbacks=[StopForGood(), *callbacks],
        ),
    )
    try:
        # in another thread, where Ray Train leaves Ctrl-C alone: its handler makes exit code 1 of it
        outcome = run_in_thread(trainer.fit).result().return_value
    except ray.train.TrainingFailedError as error:
        reason = getattr(error, "controller_failure", None)
        if isinstance(reason, RayLoraError):
            raise reason from None
        raise TrainingError(_why(error)) from None
    if isinstance(outcome, TrainingError):
        raise outcome
    assert isinstance(outcome, dict), "work returns a dict or a TrainingError"
    return outcome


def work(task: Task) -> dict[str, Any] | TrainingError:
    """One Ray Train worker: `fit` on the shared dataset, checkpoints through `ray.train.report`."""
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    logging.getLogger("accelerate").setLevel(logging.ERROR)
    context = ray.train.get_context()
    worker = Worker(
        rank=context.get_world_rank(),
        world_size=context.get_world_size(),
        global_batch_size=task.global_batch_size,
        threads=None if task.plan.use_gpu else task.plan.threads,
        use_gpu=task.plan.use_gpu,
    )

    def report(metrics: Event, folder: Path | None) -> None:
        checkpoint = Checkpoint.from_directory(str(folder)) if folder else None
        ray.train.report(metrics, checkpoint, checkpoint_dir_name=_checkpoint_name(metrics))

    checkpoint = ray.train.get_checkpoint()
    opened = checkpoint.as_directory() if checkpoint else nullcontext()
    with opened as resume_from, tempfile.TemporaryDirectory(prefix="raylora-") as scratch:
        adapter = Path(scratch) / ADAPTER
        try:
            fitted = fit(
                task.resolved.on_this_node(),
                task.dataset.load(),
                worker=worker,
                report=report,
                log=task.log,
                save_now=_until_preempted(),
                resume_from=Path(resume_from) if resume_from else None,
                save_to=adapter,
            )
        except TrainingError as error:  # every rank sees the same loss: trying again would end the same way
            return error
        except Exception as error:
            if is_full(error):
                raise _full(task.resolved.job, error) from None
            raise
        if worker.rank == 0:
            task.held.check()
            RunFolder(task.resolved.job).upload(adapter, ADAPTER)
        return _outcome(fitted, worker)


def _checkpoint_name(metrics: Event) -> str:
    """Of a whole epoch, or of a step within one."""
    if "eval_loss" in metrics:
        return f"{CHECKPOINT}{round(metrics['epoch']):03d}"
    return f"{CHECKPOINT}{int(metrics['epoch']):03d}_step_{metrics['step']:08d}"


def _until_preempted() -> Callable[[], str | None]:
    """Once a reason, when Ray announces that a node of the run is taken away: what was trained until then is kept."""
    known: list[str] = []

    def save_now() -> str | None:
        info = ray.train.get_preemption_info()
        if info is None or info.preempted_node_ids == known:
            return None
        known[:] = info.preempted_node_ids
        return "a node is about to be taken away"

    return save_now


def _full(job: Job, error: Exception) -> FullDiskError:
    where = f"`storage_path` {job.storage_path} or {tempfile.gettempdir()} on {os.uname().nodename}"
    return FullDiskError(f"{where} is full: {error}. {MAKE_ROOM}")


def global_batch_size(job: Job, plan: WorkerPlan) -> int:
    """Of a run that begins: what the most workers step together."""
    return job.train.per_device_train_batch_size * job.train.gradient_accumulation_steps * plan.most


def _outcome(fitted: FitResult, worker: Worker) -> dict[str, Any]:
    return {
        "best_epoch": round(fitted.epoch),
        "dtype": fitted.dtype,
        "validation": fitted.validation.as_dict(),
        "test": fitted.test.as_dict() if fitted.test else None,
        "floor": fitted.floor,
        **fitted.learned,
        "trainable_parameters": fitted.trainable,
        "parameters": fitted.parameters,
        "train_s": round(fitted.train_s, 3),
        "rows_per_s": round(fitted.rows / fitted.train_s, 1),
        "tokens_per_s": round(fitted.tokens / fitted.train_s, 1),
        "num_workers": worker.world_size,
    }


def _why(error: Exception) -> str:
    """The worker's own last words, without Ray's wrapping."""
    failures: dict[int, Exception] = getattr(error, "worker_failures", {})
    for rank, failure in sorted(failures.items()):
        return f"worker {rank} failed: {failure}"
    return str(error)
