"""A job as it will run: decided once, in the driver or by a process alone; below, nothing takes `auto`."""

from dataclasses import dataclass, replace
from typing import Any

import torch

from raylora.config import Job
from raylora.model.base.find import BaseFolder, resolve, resolve_on_node
from raylora.model.base.precision import resolve_bf16


@dataclass(frozen=True)
class ResolvedJob:
    """A job whose `train.bf16` is decided, and the base model that was found for it.

    It travels to every worker, beside the rows (with their labels and tokenizer) and the plan of the workers.
    """

    job: Job
    base: BaseFolder

    def __post_init__(self) -> None:
        assert self.job.train.bf16 != "auto", "decided for all workers before anything is loaded"

    @property
    def dtype(self) -> torch.dtype:
        """In which the base is held, for training and for the scores."""
        return torch.bfloat16 if self.job.train.bf16 else torch.float32

    @property
    def dtype_name(self) -> str:
        """As a run's metrics name it: `bfloat16` or `float32`."""
        return str(self.dtype).removeprefix("torch.")

    def replace(self, changes: dict[str, Any]) -> "ResolvedJob":
        """With other values of some dotted keys; the base stays."""
        return replace(self, job=self.job.replace(changes))

    def on_this_node(self) -> "ResolvedJob":
        """Raises:
        ModelError: this machine has no such base, or another one.
        """
        return replace(self, base=resolve_on_node(self.base))


def resolve_job(job: Job, use_gpu: bool = False) -> ResolvedJob:
    """For a process that trains alone, on this machine.

    Raises:
        ModelError: the base model is not to be had.
    """
    return ResolvedJob(job.replace({"train.bf16": resolve_bf16(job.train, use_gpu)}), resolve(job.model))
