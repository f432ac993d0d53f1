"""The one loop of prediction: batches of like length, collated, through a model, and back in the rows' order."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from raylora.model.batches import sorted_batches
from raylora.model.collator import Collator
from raylora.model.windows import pooled_logits
from raylora.tasks import Pooling

T = TypeVar("T")
Share = tuple[int, int]  # of the batches: this worker's rank, and how many workers they are dealt out to
ALL: Share = (0, 1)


def run_batches(
    collator: Collator,
    batch_rows: int,
    forward: Callable[[dict[str, Tensor]], T],
    device: torch.device | str = "cpu",
    share: Share = ALL,
) -> Iterator[tuple[np.ndarray, T]]:
    """Places of a batch's rows in the table, and what `forward` makes of the batch, one batch after another.

    The batches are the same for any number of workers; nothing is padded with repeated rows.

    Args:
        batch_rows: of one batch, at most; windows, where rows are read in these.
        forward: takes a collated batch on `device`, without labels; runs in inference mode.
    """
    rank, world_size = share
    for indices in sorted_batches(collator.table.lengths, batch_rows, collator.windows)[rank::world_size]:
        batch = {name: tensor.to(device) for name, tensor in collator(indices).items() if name != "labels"}
        with torch.inference_mode():
            result = forward(batch)
        yield indices, result


def in_order(parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Arrays [B, ...] of batches that hold every row once, as one [N, ...] in the table's order."""
    order = np.argsort(np.concatenate([indices for indices, _ in parts]))
    return np.concatenate([values for _, values in parts])[order]


def logits_of(model: Any, pooling: Pooling) -> Callable[[dict[str, Tensor]], np.ndarray]:
    """A `forward`: [B, C] float32.

    Args:
        pooling: the task's `pool_windows`.
    """
    return lambda batch: pooled_logits(model, batch, pooling).float().cpu().numpy()


def predict_logits(model: Any, collator: Collator, batch_rows: int, pooling: Pooling = "mean") -> np.ndarray:
    """[N, C] float32 of every row of the collator's table, in its order; the model's dropout is off."""
    device = next(model.parameters()).device
    return in_order(list(run_batches(collator, batch_rows, logits_of(model, pooling), device)))
