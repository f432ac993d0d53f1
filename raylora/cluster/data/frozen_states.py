"""The frozen states of a dataset: computed once by Ray tasks, left in the object store for all epochs and trials."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import torch
from ray import ObjectRef

from raylora.cluster.data.dataset import Dataset
from raylora.cluster.session import SETTLE_S, alive_nodes, free_resources
from raylora.model.base.load import as_tensor, base_weights, empty_base, load_base, read_config
from raylora.model.base.precision import eager_when_short
from raylora.model.collator import Collator
from raylora.model.frozen_states import compute, constant_layers
from raylora.model.lora.attach import attach_adapter, lora_config
from raylora.model.resolved import ResolvedJob
from raylora.model.tokens import TokenTable


def frozen_depth(resolved: ResolvedJob, labels: tuple[str, ...]) -> int:
    """How many of the base's lowest layers are constant in this job; told without its weights, in milliseconds."""
    job, base = resolved.job, resolved.base
    model = empty_base(base, read_config(base, labels, job.train.base_dropout))
    return constant_layers(attach_adapter(model, lora_config(job.lora, model)))


@dataclass(frozen=True)
class _Order:
    """What all tasks of one computation have in common."""

    resolved: ResolvedJob
    dataset: Dataset
    depth: int
    cpus: int
    use_gpu: bool


def with_frozen_states(
    dataset: Dataset, resolved: ResolvedJob, weights: ObjectRef | None = None, use_gpu: bool = False
) -> Dataset:
    """The dataset with the states that enter the lowest trained layer, for every row that a split holds.

    One task per token block; what does not fit into the object store's memory, the store keeps on disk. The same
    dataset where nothing below is constant.

    Args:
        weights: `base_weights` in the job's precision, where they are in the object store already.
        use_gpu: a GPU for each task.
    """
    depth = frozen_depth(resolved, dataset.labels)
    if not depth:
        return dataset
    blocks = dataset.blocks
    order = _Order(resolved, replace(dataset, blocks=[]), depth, _cpus_per_task(len(blocks)), use_gpu)
    shared = ray.put(order)
    weights = weights or _weights.remote(shared)
    task: Any = _compute.options(num_cpus=order.cpus, num_gpus=int(use_gpu))
    starts = np.cumsum([0, *ray.get([_num_rows.remote(block) for block in blocks])])
    made: list[tuple[ObjectRef, ObjectRef]] = [
        task.remote(shared, block, weights, int(start)) for block, start in zip(blocks, starts[:-1], strict=True)
    ]
    ray.get([done for _, done in made])  # before workers take the CPUs that these tasks wait for
    return replace(dataset, frozen_states=[states for states, _ in made], frozen_depth=depth)


def _cpus_per_task(tasks: int) -> int:
    """All of the cluster's free cores for few blocks, one for each of many. Of what is free, some node has its even
    share at least: a task that wanted more might wait for others to end."""
    each = [cpus for node in alive_nodes() if (cpus := int(node["Resources"].get("CPU", 0)))]
    free = int(free_resources(SETTLE_S).get("CPU", 0)) // len(each)
    return max(1, min(sum(each) // max(tasks, 1), min(each), free))


@ray.remote(num_cpus=0)
def _num_rows(block: pa.Table) -> int:
    return block.num_rows


@ray.remote
def _weights(order: _Order) -> dict[str, np.ndarray]:
    resolved = order.resolved.on_this_node()
    config = read_config(resolved.base, order.dataset.labels, dropout=False)
    return base_weights(load_base(resolved.base, config, order.dataset.tokenizer.pad_id, resolved.dtype))


@ray.remote(num_returns=2)
def _compute(order: _Order, block: pa.Table, weights: dict[str, np.ndarray], start: int) -> tuple[np.ndarray, None]:
    """The block's states; the second value tells the driver that they are there, without moving them to it."""
    torch.set_num_threads(order.cpus)
    dataset, resolved = order.dataset, order.resolved.on_this_node()
    rows = np.concatenate([split.rows for split in dataset.splits.values()]) - start
    lengths = np.concatenate([split.lengths for split in dataset.splits.values()])
    inside = (rows >= 0) & (rows < block.num_rows)
    table = TokenTable([block], rows[inside], np.zeros(int(inside.sum()), dtype=np.int64), lengths[inside])
    config = read_config(resolved.base, dataset.labels, dropout=False)
    state = {name: as_tensor(array) for name, array in weights.items()}
    model: Any = load_base(resolved.base, config, dataset.tokenizer.pad_id, resolved.dtype, state).model
    if resolved.job.train.bf16:
        eager_when_short(model)
    model.to("cuda" if order.use_gpu else "cpu")
    collator = Collator(table, dataset.tokenizer)
    return compute(model, collator, order.depth, resolved.job.train.per_device_eval_batch_size)[0], None
