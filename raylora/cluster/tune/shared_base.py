"""What all trials on one base model share: its weights and the tokenized rows, once per node, in the object store."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ray
import torch
from ray import ObjectRef

from raylora.cluster.data.dataset import Dataset
from raylora.cluster.data.frozen_states import frozen_depth, with_frozen_states
from raylora.cluster.data.prepare import prepare
from raylora.cluster.data.rows import Source
from raylora.cluster.data.wanted import check_wanted
from raylora.cluster.placement import WorkerPlan, remote_options
from raylora.cluster.resolve import Resolution
from raylora.cluster.tune.trial_progress import TrialProgress
from raylora.config import Job
from raylora.floor import Floor
from raylora.model.base.find import BaseFolder
from raylora.model.base.load import as_tensor, base_weights, load_base, load_tokenizer, read_config
from raylora.model.fit.start import Start, start_key, starts_of
from raylora.model.limits import check_limits, latency_ms, trainable_parameters
from raylora.model.resolved import ResolvedJob
from raylora.model.tokens import spec_for


@dataclass(frozen=True)
class SharedBase:
    """A base model, the rows tokenized for it, its weights, and what one must load it to know.

    Args:
        new_modules: of `load_base`.
        latency_ms: its time for a row of median length, on one worker.
        by_depth: the dataset with the frozen states of each depth that the trials start at.
        starts: where the head of a trial starts, by `start_key`.
        floor: what the winner must beat; None where the job wants none.
    """

    base: BaseFolder
    dataset: Dataset
    weights: ObjectRef
    new_modules: tuple[str, ...]
    latency_ms: float
    by_depth: dict[int, Dataset]
    starts: Mapping[str, Start]
    floor: Floor | None

    def resolved(self, job: Job) -> ResolvedJob:
        """A trial's job on this base."""
        return ResolvedJob(job, self.base)

    def rows(self, job: Job) -> Dataset:
        """To train on and to choose by, with the states that enter the trial's lowest layer."""
        depth = frozen_depth(self.resolved(job), self.dataset.labels)
        return replace(self.by_depth.get(depth, without_test(self.dataset)), start=self.starts[start_key(job)])

    def all_rows(self, job: Job) -> Dataset:
        """Those of the test split too, for the trial that won."""
        return replace(self.dataset, start=self.starts[start_key(job)])

    def state(self) -> dict[str, torch.Tensor]:
        """The base's weights, not copied: one copy serves all processes of a node."""
        arrays: dict[str, Any] = ray.get(self.weights)
        return {name: as_tensor(array) for name, array in arrays.items()}

    def begin(self, job: Job) -> TrialProgress:
        """Where a new trial starts.

        Raises:
            TrainingError: it is larger or slower than `tune.max_*` allow.
        """
        size = trainable_parameters(self.resolved(job), self.dataset.labels, self.new_modules)
        check_limits(job, size, self.latency_ms)
        return TrialProgress(job.metric, size, self.latency_ms)


def make_shared_base(found: Resolution, name: str, sources: list[Source], trials: Sequence[Job]) -> SharedBase:
    """Read, check, split and tokenize the rows; load the base once, on a worker's resources.

    Args:
        name: of one of the sweep's bases.
        trials: jobs of the sweep, for their heads' starts and the depths of their frozen states.

    Raises:
        DataError, ModelError: as `prepare` and `load_base`.
        ConfigError: as `check_wanted`.
    """
    resolved = found.of(found.job.replace({"model.base_model": name}))
    spec = spec_for(load_tokenizer(resolved.base.path), found.job.data)
    dataset = prepare(found.job, sources, spec)
    check_wanted(trials, dataset)
    lengths = sorted(dataset.splits["train"].lengths)
    task: Any = ray.remote(_load).options(num_returns=2, **remote_options(found.plan))
    weights, facts = task.remote(resolved, dataset.labels, spec.pad_id, found.plan, int(lengths[len(lengths) // 2]))
    new_modules, latency = ray.get(facts)
    starts = _starts(resolved, dataset, weights, found.plan, trials)
    floor = next(iter(starts.values())).floor
    starts = {key: replace(start, floor=None) for key, start in starts.items()}
    by_depth = _by_depth(resolved, dataset, weights, found.plan, trials)
    return SharedBase(resolved.base, dataset, weights, new_modules, latency, by_depth, starts, floor)


def _starts(
    resolved: ResolvedJob, dataset: Dataset, weights: ObjectRef, plan: WorkerPlan, trials: Sequence[Job]
) -> dict[str, Start]:
    """The head that trials begin with, by `start_key`, and the floor of the sweep, on a worker's resources."""
    some = any(trial.train.head_init == "probe" for trial in trials)
    wanted = resolved.replace({"train.head_init": "probe" if some else "random"})
    task: Any = ray.remote(_make_starts).options(**remote_options(plan))
    return ray.get(task.remote(wanted, dataset, weights, plan, list({start_key(job): job for job in trials}.values())))


def _make_starts(
    resolved: ResolvedJob, dataset: Dataset, weights: dict[str, Any], plan: WorkerPlan, trials: list[Job]
) -> dict[str, Start]:
    if plan.threads and not plan.use_gpu:
        torch.set_num_threads(plan.threads)
    resolved, splits = resolved.on_this_node(), dataset.load()
    state = {name: as_tensor(array) for name, array in weights.items()}
    return starts_of(resolved, splits, trials, state, "cuda" if plan.use_gpu else "cpu")


def without_test(dataset: Dataset) -> Dataset:
    """The test split stays out of a sweep."""
    return replace(dataset, splits={split: rows for split, rows in dataset.splits.items() if split != "test"})


def _by_depth(
    resolved: ResolvedJob, dataset: Dataset, weights: ObjectRef, plan: WorkerPlan, trials: Sequence[Job]
) -> dict[int, Dataset]:
    """By depth; computed once for all trials that start there."""
    name, rows = resolved.job.model.base_model, without_test(dataset)
    own = [trial for trial in trials if trial.model.base_model == name and trial.lora.layers_to_transform]
    held = [replace(resolved, job=trial.replace({"train.bf16": resolved.job.train.bf16})) for trial in own]
    starts = {frozen_depth(each, dataset.labels): each for each in held}
    return {depth: with_frozen_states(rows, each, weights, plan.use_gpu) for depth, each in starts.items() if depth}


def _load(
    resolved: ResolvedJob, labels: tuple[str, ...], pad_token_id: int, plan: WorkerPlan, length: int
) -> tuple[dict[str, Any], tuple[tuple[str, ...], float]]:
    if plan.threads and not plan.use_gpu:
        torch.set_num_threads(plan.threads)
    resolved = resolved.on_this_node()
    config = read_config(resolved.base, labels, dropout=False)
    loaded = load_base(resolved.base, config, pad_token_id, resolved.dtype)
    weights = base_weights(loaded)
    model: Any = loaded.model.eval().float()
    model = model.to("cuda" if plan.use_gpu else "cpu")
    return weights, (loaded.new_modules, round(latency_ms(model, length, resolved.job.data.max_length), 3))
