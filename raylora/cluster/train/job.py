"""A train job: Ray Data makes the dataset, Ray Train runs `fit` on its workers, the run folder keeps the outcome."""

import json
from collections.abc import Sequence
from typing import Any

import ray
from ray.train import Result

from raylora.cluster.data.dataset import Dataset
from raylora.cluster.data.frozen_states import with_frozen_states
from raylora.cluster.data.prepare import prepare
from raylora.cluster.data.rows import Source
from raylora.cluster.events.history import Event
from raylora.cluster.events.stream import follow
from raylora.cluster.placement import WorkerPlan, need_of, plan_workers, tell_wait
from raylora.cluster.preflight import preflight
from raylora.cluster.session import Cluster, alive_nodes, connect, on_node
from raylora.cluster.storage.run_folder import ADAPTER, BAD_ROWS, CONFIG, FINISHED, RunFolder
from raylora.cluster.train.workers import Task, run_workers
from raylora.config import Job
from raylora.config.file import changed_keys, dump, parse_yaml
from raylora.errors import ConfigError
from raylora.metrics import Scores
from raylora.model.base.find import BaseFolder, pin_revision, resolve
from raylora.model.base.load import load_tokenizer
from raylora.model.base.precision import needs_fp32, resolve_bf16
from raylora.model.fit.build import check_fits
from raylora.model.tokens import tokenizer_spec
from raylora.records import Say, TrainResult

# keys of a run that goes on; all others decide what it yields
MAY_CHANGE = ("ray.", "storage_path:", "tune.time_budget_s:", "train.frozen_states_cache_bytes:")


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
        preflight(folder, sources, cluster)
        base = pin_revision(base) if len(cluster.nodes) > 1 else base
        job = decide_bf16(job, plan, [base])
        dataset = prepare(job, sources, tokenizer)
        folder.write_text(CONFIG, dump(job))
        tell(dataset, folder, say)
        dataset = with_frozen_states(dataset, job, base, use_gpu=plan.use_gpu)
        if dataset.frozen_states:
            say(f"frozen     layers below {dataset.frozen_depth} are constant: computed once for every row")
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
    if not folder.has(CONFIG):
        return job
    old = Job.model_validate(parse_yaml(folder.read_text(CONFIG), folder.uri))
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
    rows = {split: len(r.rows) for split, r in dataset.splits.items()}
    if dataset.bad_rows:
        folder.write_text(BAD_ROWS, "".join(json.dumps(row) + "\n" for row in dataset.bad_rows))
        say(f"skipped    {len(dataset.bad_rows)} bad rows, listed in {BAD_ROWS}")
    shown = ", ".join(dataset.labels[:10]) + (", …" if len(dataset.labels) > 10 else "")
    say(f"rows       {', '.join(f'{n:,} {split}' for split, n in rows.items())}; {len(dataset.labels)} labels: {shown}")
    for warning in dataset.warnings:
        say(f"warning    {warning}")


def _last_report(folder: RunFolder) -> Event | None:
    """Metrics of the last checkpoint, where there is one."""
    try:
        return Result.from_path(folder.path, storage_filesystem=folder.filesystem).metrics
    except RuntimeError:
        return None


def _global_batch_size(last: Event | None) -> int | None:
    """Of the run that goes on; runs of 0.1.0 before November 2026 named it `step_rows`."""
    return last.get("global_batch_size", last.get("step_rows")) if last else None


def _run(
    job: Job, base: BaseFolder, dataset: Dataset, plan: WorkerPlan, folder: RunFolder, last: Event | None, say: Say
) -> dict[str, Any]:
    """Rank 0's outcome of the run on Ray Train's workers."""
    with follow(folder, say, last_step=last["step"] if last else 0) as log:
        return run_workers(Task(job, base, dataset, plan, _global_batch_size(last), log))


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
        adapter_uri=folder.inside(ADAPTER),
        labels=dataset.labels,
        validation=Scores(**outcome["validation"]),
        test=Scores(**outcome["test"]) if outcome["test"] else None,
        floor=outcome["floor"],
        best_epoch=outcome["best_epoch"],
        metrics=metrics,
    )
