"""Which trials can be trained together over one base (`bank`), and how many. Loads no torch: light processes ask."""

import json
from typing import TYPE_CHECKING, Any

from raylora.config import Job
from raylora.errors import RayLoraError

if TYPE_CHECKING:
    import numpy as np

# What each trial of a pack has of its own; all other keys must be equal.
OWN = {
    "lora": {"r", "lora_alpha", "lora_dropout", "target_modules", "layers_to_transform", "use_rslora"},
    "train": {
        "num_train_epochs",
        "learning_rate",
        "optim",
        "weight_decay",
        "max_grad_norm",
        "lr_scheduler_type",
        "warmup_steps",
        "logging_steps",
        "metric_for_best_model",
        "early_stopping_patience",
        "head_init",
        "floor",
    },
}
NO_MATTER = {"run_name", "storage_path", "ray", "tune"}

CPU_TOKENS, GPU_TOKENS = 4096, 65536
CPU_SLOTS, GPU_SLOTS = 8, 32


class NotPackable(RayLoraError):  # noqa: N818 - what the trial is
    """A trial that must be trained alone; the message says why."""


def packable(job: Job) -> str | None:
    """Why the trial must be trained alone; None if it can share a base with others.

    What only the base itself shows (a target that is no linear layer) `Bank.admit` finds, and raises `NotPackable`.
    """
    if job.lora.use_dora:
        return "lora.use_dora"
    if job.lora.bias != "none":
        return f"lora.bias: {job.lora.bias}"
    if job.train.base_dropout:
        return "train.base_dropout"
    if job.data.truncation == "windows":  # trials at different epochs would have unequally many for each slot
        return "data.truncation: windows"
    return None


def pack_key(job: Job) -> str:
    """Equal for trials that can be in one pack, the lowest adapted layer included: below it all share states."""
    tree: dict[str, Any] = job.model_dump(exclude={**OWN, **dict.fromkeys(NO_MATTER, True)})
    tree["lowest_layer"] = lowest_layer(job)
    return json.dumps(tree, sort_keys=True)


def lowest_layer(job: Job) -> int:
    return min(job.lora.layers_to_transform or [0])


def slots(job: Job, lengths: "np.ndarray", use_gpu: bool) -> int:
    """How many trials one pack may hold.

    On CPU a step of more than about 4,096 tokens leaves the cache and loses to one trial after another (16 trials of
    16 x 32: 0.83 times the speed, 8 of 8 x 25: 1.44).

    Args:
        lengths: [N] tokens of each train row.
    """
    import numpy as np

    tokens = job.train.per_device_train_batch_size * float(np.percentile(lengths, 90))
    limit, most = (GPU_TOKENS, GPU_SLOTS) if use_gpu else (CPU_TOKENS, CPU_SLOTS)
    return max(1, min(most, int(limit / tokens)))
