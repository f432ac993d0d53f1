"""The model that is trained: a base with a new adapter and head, in the precision that the job asks for."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from transformers import PreTrainedModel

from raylora.config import Job
from raylora.model.base.find import BaseFolder
from raylora.model.base.load import check_vocabulary, empty_base, load_base, read_config
from raylora.model.base.precision import eager_when_short, train_in_fp32
from raylora.model.lora.attach import attach_adapter, check_positions, lora_config
from raylora.model.resolved import ResolvedJob

if TYPE_CHECKING:
    from peft import PeftModel


def build(
    resolved: ResolvedJob,
    labels: tuple[str, ...],
    pad_token_id: int,
    weights: Mapping[str, torch.Tensor] | None = None,
) -> "PeftModel":
    """The base with a new adapter and head; draws from torch's global generator.

    Base in bf16 or fp32, from disk or from `weights` (of `load_base`): the same seed draws the same trained weights.
    """
    job, base = resolved.job, resolved.base
    config = read_config(base, labels, job.train.base_dropout, job.task.problem_type)
    loaded = load_base(base, config, pad_token_id, resolved.dtype, weights)
    model = attach_adapter(loaded.model, lora_config(job.lora, loaded.model, loaded.new_modules))
    if job.train.bf16:
        train_in_fp32(model)
        eager_when_short(loaded.model)
    return model


def check_fits(job: Job, base: BaseFolder) -> None:
    """Fail before any cluster starts on a rank, target module, layer or length that this base cannot have, or on a
    tokenizer that is not its own.

    Raises:
        ConfigError, ModelError: says what the base has instead.
    """
    model: PreTrainedModel = empty_base(base, read_config(base, ("a", "b"), dropout=True))
    lora_config(job.lora, model)
    check_vocabulary(base, model)
    check_positions(model, job.data.max_length)
