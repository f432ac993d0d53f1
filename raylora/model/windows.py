"""Rows that are read in windows: each window is a sequence of the batch, and a row is what they come to together."""

from typing import Any

import torch
from torch import Tensor

from raylora.tasks import Pooling


def pool(values: Tensor, windows: Tensor, pooling: Pooling) -> Tensor:
    """[B, ...] float32 of rows from [W, ...] of their windows, those of one row after those of another.

    Args:
        windows: [B] how many each row has.
    """
    parts = values.float().split(windows.tolist())
    return torch.stack([part.mean(0) if pooling == "mean" else part.amax(0) for part in parts])


def pooled_logits(model: Any, batch: dict[str, Tensor], pooling: Pooling) -> Tensor:
    """[B, C] of a batch of `Collator`, without labels, by a model that knows nothing of windows."""
    logits = model(**sequences(batch)).logits
    return pool(logits, batch["windows"], pooling) if "windows" in batch else logits


def sequences(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """What a model is fed of a batch."""
    return {name: values for name, values in batch.items() if name != "windows"}
