"""A train job: Ray Data makes the dataset, Ray Train runs `fit` on its workers, the run folder keeps the outcome."""

import json
import logging
import tempfile
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import ray.train
from ray.train import Checkpoint, CheckpointConfig, FailureConfig, Result, RunConfig, ScalingConfig, UserCallback
from ray.train.torch import TorchTrainer

from raylora.cluster.connect import Cluster, alive_nodes, connect, on_node
from raylora.cluster.data.dataset import Dataset
from raylora.cluster.data.prefix import with_prefix
from raylora.cluster.data.prepare import prepare
from raylora.cluster.data.rows import Source
from raylora.cluster.progress import Record, follow
from raylora.cluster.reach import check_reach
from raylora.cluster.room import WorkerPlan, need_of, plan_workers, tell_wait
from raylora.cluster.storage import FINISHED, RunFolder
from raylora.config import Job
from raylora.errors import ConfigError, TrainingError
from raylora.jobfile import changed_keys, dump, parse_yaml
from raylora.metrics import Scores
from raylora.model.base import load_tokenizer
from raylora.model.find import BaseFolder, here, pin, resolve
from raylora.model.fit import Fitted, Worker, check_fits, fit
from raylora.model.precision import needs_fp32, resolve_bf16
from raylora.model.threads import in_passing
from raylora.model.tokens import tokenizer_spec
from raylora.records import Say, TrainResult

# keys of a run that goes on; all others decide what it yields
MAY_CHANGE = ("ray.", "storage_path:", "tune.time_budget_s:", "train.prefix_cache_bytes:")


@dataclass(frozen=True)
class Task:
    """All that one worker needs, as it travels through Ray Train.

    `step_rows` is that of the run that goes on; None = what the most workers step together.
    """

    job: Job
    base: BaseFolder
    dataset: Dataset
    plan: WorkerPlan
    step_rows: int | None
    log: Callable[[Record], None]


def train(job: Job, sources: list[Source], say: Say) -> TrainResult:
    """Run a train job, or go on with it where the run folder holds a checkpoint.

    Args:
        job: with a run name.
        sources: the job's files, from `list_sources`.
        say: takes each line of progress.

    Raises:
        RayLoraError: the job cannot be; nothing was started that looks finished.
        TrainingError: the run failed; the same command goes on from its last checkpoint.
    """
    folder = RunFolder(job)
    job = check_folder(folder, job)
    base = resolve(job.model)
    check_fits(job, base)
    tokenizer = tokenizer_spec(load_tokenizer(base.path), job.data.max_length)
    say(f"run        {folder.uri}")
    say(f"base       {base.id} ({base.origin})")
    with connect(job.ray) as cluster:
        say(f"ray        {cluster}")
        plan = plan_workers(job.ray, cluster)
        tell_wait(need_of(plan), cluster, say)  # the dataset is made on the cluster, too
        check_reach(folder, sources, cluster)
        base = pin(base) if len(cluster.nodes) > 1 else base
        job = decide_bf16(job, plan, [base])
        dataset = prepare(job, sources, tokenizer)
        folder.write_text("config.yaml", dump(job))
        tell(dataset, folder, say)
        dataset = with_prefix(dataset, job, base, use_gpu=plan.use_gpu)
        if dataset.prefix:
            say(f"prefix     layers below {dataset.prefix_depth} are constant: computed once for every row")
        last = _last_report(folder)
        if last:
            say(f"resuming   from epoch {last['epoch']:g} of {job.train.num_train_epochs}, step {last['step']}")
        tell_wait(need_of(plan), cluster, say)
        outcome = _run(folder.absolute(job), base, dataset, plan, folder, last, say)
    return _conclude(job, base, dataset, cluster, folder, outcome)


def check_folder(folder: RunFolder, job: Job) -> Job:
    """The job to start or to go on with: `train.bf16: auto` stays what it was decided to be.

    Raises:
        ConfigError: the run is finished, or was started with another config; names every key that differs.
    """
    if folder.has(FINISHED):
        raise ConfigError(f"run {folder.uri} is finished. Choose another `run_name`, or remove the folder.")
    if not folder.has("config.yaml"):
        return job
    old = Job.model_validate(parse_yaml(folder.read_text("config.yaml"), folder.uri))
    if job.train.bf16 == "auto":
        job = job.replace({"train.bf16": old.train.bf16})
    changed = [line for line in changed_keys(old, job) if not line.startswith(MAY_CHANGE)]
    if changed:
        raise ConfigError(
            f"run {folder.uri} was started with another config; it goes on only with its own:\n  "
            + "\n  ".join(changed)
            + "\nUndo the change, or choose another `run_name`."
        )
    return job


def decide_bf16(job: Job, plan: WorkerPlan, bases: Sequence[BaseFolder]) -> Job:
    """The job with `train.bf16: auto` decided: on where every node that can hold a worker gains by it, and every base
    can run in it.

    Raises:
        ConfigError: it is wanted of a base that cannot.
    """
    unable = [base.id for base in bases if needs_fp32(base)]
    if unable and job.train.bf16 is True:
        raise ConfigError(
            f"`train.bf16: true`: base model {unable[0]} cannot run in bfloat16. Set it to auto or false."
        )
    if job.train.bf16 != "auto" or unable:
        return job.replace({"train.bf16": job.train.bf16 is True})
    alive = alive_nodes()
    wanted = plan.resources_per_worker.items()
    able = [node for node in alive if all(node["Resources"].get(name, 0) >= amount for name, amount in wanted)]
    share = 0.01 if plan.use_gpu else 0  # a task sees a GPU only by holding a share of one
    asked = [_has_bf16.options(num_gpus=share, **on_node(node)).remote(job, plan.use_gpu) for node in able or alive]
    found = ray.get(asked)
    return job.replace({"train.bf16": all(found)})


@ray.remote(num_cpus=0)
def _has_bf16(job: Job, use_gpu: bool) -> bool:
    return resolve_bf16(job.train, use_gpu)


def tell(dataset: Dataset, folder: RunFolder, say: Say) -> None:
    """Say what the dataset holds; write bad_rows.jsonl where rows were left out."""
    rows = {side: len(r.rows) for side, r in dataset.sides.items()}
    if dataset.bad_rows:
        folder.write_text("bad_rows.jsonl", "".join(json.dumps(row) + "\n" for row in dataset.bad_rows))
        say(f"skipped    {len(dataset.bad_rows)} bad rows, listed in bad_rows.jsonl")
    shown = ", ".join(dataset.labels[:10]) + (", …" if len(dataset.labels) > 10 else "")
    say(f"rows       {', '.join(f'{n:,} {side}' for side, n in rows.items())}; {len(dataset.labels)} labels: {shown}")
    for warning in dataset.warnings:
        say(f"warning    {warning}")


def _last_report(folder: RunFolder) -> Record | None:
    """Metrics of the last checkpoint, where there is one."""
    try:
        return Result.from_path(folder.path, storage_filesystem=folder.filesystem).metrics
    except RuntimeError:
        return None


def _run(
    job: Job, base: BaseFolder, dataset: Dataset, plan: WorkerPlan, folder: RunFolder, last: Record | None, say: Say
) -> dict[str, Any]:
    """Rank 0's outcome of the run on Ray Train's workers."""
    with follow(folder, say, last_step=last["step"] if last else 0) as log:
        return run_workers(Task(job, base, dataset, plan, last["step_rows"] if last else None, log))


def run_workers(task: Task, callbacks: Sequence[UserCallback] = ()) -> dict[str, Any]:
    """Rank 0's outcome of a run on Ray Train's workers, from its last checkpoint where there is one.

    Raises:
        TrainingError: the run failed.
    """
    folder, plan = RunFolder(task.job), task.plan

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
            failure_config=FailureConfig(max_failures=task.job.ray.max_failures),
            callbacks=list(callbacks),
        ),
    )
    try:
        # in another thread, where Ray Train leaves Ctrl-C alone: its handler makes exit code 1 of it
        outcome = in_passing(trainer.fit).result().return_value
    except ray.train.TrainingFailedError as error:
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
        step_rows=task.step_rows or _step_rows(task),
        threads=None if task.plan.use_gpu else task.plan.threads,
        use_gpu=task.plan.use_gpu,
    )

    def report(metrics: Record, folder: Path | None) -> None:
        checkpoint = Checkpoint.from_directory(str(folder)) if folder else None
        ray.train.report(metrics, checkpoint, checkpoint_dir_name=f"checkpoint_{round(metrics['epoch']):03d}")

    checkpoint = ray.train.get_checkpoint()
    opened = checkpoint.as_directory() if checkpoint else nullcontext()
    with opened as resume_from, tempfile.TemporaryDirectory(prefix="raylora-") as scratch:
        adapter = Path(scratch) / "adapter"
        try:
            fitted = fit(
                task.job,
                here(task.base),
                task.dataset.load(),
                worker=worker,
                report=report,
                log=task.log,
                resume_from=Path(resume_from) if resume_from else None,
                save_to=adapter,
            )
        except TrainingError as error:  # every rank sees the same loss: trying again would end the same way
            return error
        if worker.rank == 0:
            RunFolder(task.job).upload(adapter, "adapter")
        return _outcome(fitted, worker)


def _step_rows(task: Task) -> int:
    train = task.job.train
    return train.per_device_train_batch_size * train.gradient_accumulation_steps * task.plan.most


def _outcome(fitted: Fitted, worker: Worker) -> dict[str, Any]:
    return {
        "best_epoch": round(fitted.epoch),
        "dtype": fitted.dtype,
        "validation": fitted.validation.as_dict(),
        "test": fitted.test.as_dict() if fitted.test else None,
        "floor": fitted.floor,
        "trainable_parameters": fitted.trainable,
        "parameters": fitted.parameters,
        "train_s": round(fitted.train_s, 3),
        "rows_per_s": round(fitted.rows / fitted.train_s, 1),
        "tokens_per_s": round(fitted.tokens / fitted.train_s, 1),
        "num_workers": worker.world_size,
    }


def _conclude(
    job: Job, base: BaseFolder, dataset: Dataset, cluster: Cluster, folder: RunFolder, outcome: dict[str, Any]
) -> TrainResult:
    metrics = {
        "run_name": job.run_name,
        "base_model": base.id,
        "labels": list(dataset.labels),
        "data": dataset.facts,
        **outcome,
        "cluster": str(cluster),
    }
    folder.write_json(FINISHED, metrics)
    return TrainResult(
        folder_uri=folder.uri,
        adapter_uri=f"{folder.uri}/adapter",
        labels=dataset.labels,
        validation=Scores(**outcome["validation"]),
        test=Scores(**outcome["test"]) if outcome["test"] else None,
        floor=outcome["floor"],
        best_epoch=outcome["best_epoch"],
        metrics=metrics,
    )


def _why(error: Exception) -> str:
    """The worker's own last words, without Ray's wrapping."""
    failures: dict[int, Exception] = getattr(error, "worker_failures", {})
    for rank, failure in sorted(failures.items()):
        return f"worker {rank} failed: {failure}"
    return str(error)
