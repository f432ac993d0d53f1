"""What a job comes to on its cluster, decided once, before anything is loaded: bases, precision, workers."""

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import ray

from raylora.cluster.data.rows import Source
from raylora.cluster.placement import WorkerPlan, need_of, plan_workers, tell_bound, tell_wait
from raylora.cluster.preflight import preflight
from raylora.cluster.session import Cluster, alive_nodes, ask_nodes, connect, look
from raylora.cluster.storage.run_folder import CONFIG, FINISHED, RunFolder
from raylora.config import Job, RaySection, TrainSection
from raylora.config.file import changed_keys, read_saved
from raylora.errors import ConfigError
from raylora.model.base.find import BaseFolder, pin_revision
from raylora.model.base.precision import needs_fp32, resolve_bf16
from raylora.model.resolved import ResolvedJob
from raylora.records import Say
from raylora.tasks import task_of

# keys of a run that goes on; all others decide what it yields
MAY_CHANGE = (
    "ray.",
    "predict.",
    "data.mute:",
    "storage_path:",
    "tune.time_budget_s:",
    "train.frozen_states_cache_bytes:",
    "train.save_steps:",
    "train.save_minutes:",
    "train.report_to:",
)


@dataclass(frozen=True)
class Resolution:
    """Args:
    job: with `train.bf16` decided.
    bases: every base model of the job, by `model.base_model`, with the digest of its weights.
    plan: of a run's workers; of a sweep, one of its workers.
    """

    job: Job
    bases: Mapping[str, BaseFolder]
    folder: RunFolder
    cluster: Cluster
    plan: WorkerPlan

    def of(self, job: Job) -> ResolvedJob:
        """This job, or a trial's, for processes elsewhere: they work in other directories."""
        return ResolvedJob(self.folder.absolute(job), self.bases[job.model.base_model])


@contextmanager
def resolve_on_cluster(
    job: Job,
    bases: Mapping[str, BaseFolder],
    folder: RunFolder,
    sources: list[Source],
    say: Say,
    workers: RaySection | None = None,
    dashboard: bool = False,
) -> Generator[Resolution]:
    """Join the cluster, and decide there all that the job leaves `auto`; connected while the `with` is open.

    Args:
        job: of `check_folder`.
        workers: in place of `job.ray`, what is planned for.

    Raises:
        ClusterError: no Ray, no room, or a node that does not see what it must.
        ConfigError: `train.bf16` is wanted of a base that cannot.
    """
    with connect(job.ray, dashboard) as cluster:
        say(f"ray        {cluster}")
        plan = plan_workers(workers or job.ray, cluster)
        cluster = look(cluster)  # nodes may have come for the workers
        if (workers or job.ray).num_workers == "auto" and plan.use_gpu:
            tell_bound(plan.resources_per_worker, plan.most, cluster, say)
        tell_wait(need_of(plan), cluster, say)  # the dataset is made on the cluster, too
        preflight(folder, sources, cluster)
        pinned = {name: pin_revision(base) for name, base in bases.items()}
        yield Resolution(decide_bf16(job, plan, list(bases.values())), pinned, folder, cluster, plan)


def check_folder(folder: RunFolder, job: Job) -> Job:
    """The job to start or to go on with: `train.bf16: auto` stays what it was decided to be.

    Raises:
        ConfigError: the run is finished, or was started with another config; names every key that differs.
    """
    if folder.has(FINISHED):
        raise ConfigError(f"run {folder.uri} is finished. Choose another `run_name`, or remove the folder.")
    if not folder.has(CONFIG):
        return job
    old = read_saved(folder.read_text(CONFIG), folder.uri)
    if old.data.problem_type is None:  # runs of before December 2026 had one kind
        old = old.replace({"data.problem_type": task_of(None).problem_type})
    if job.train.bf16 == "auto":
        job = job.replace({"train.bf16": old.train.bf16})
    if job.train.metric_for_best_model is None:
        job = job.replace({"train.metric_for_best_model": old.train.metric_for_best_model})
    if job.data.problem_type is None:
        job = job.replace({"data.problem_type": old.data.problem_type})
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
    found = [answer for _, answer in ask_nodes(_on_gpus if plan.use_gpu else _on_cpus, able or alive, job.train)]
    return job.replace({"train.bf16": bool(found) and all(found)})


@ray.remote(num_cpus=0)
def _on_cpus(train: TrainSection) -> bool:
    return resolve_bf16(train, use_gpu=False)


# a task sees the GPUs of its node without holding one; its process ends with it, and what torch takes of a GPU's memory
@ray.remote(num_cpus=0, max_calls=1)
def _on_gpus(train: TrainSection) -> bool:
    return resolve_bf16(train, use_gpu=True)
