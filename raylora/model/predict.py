"""The one loop of prediction: batches of like length, collated, through a model, and back in the rows' order."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from raylora.model.batches import sorted_batches
from raylora.model.tokens import Collator

T = TypeVar("T")


def run_batches(
    collator: Collator,
    batches: Iterable[np.ndarray],
    forward: Callable[[dict[str, Tensor]], T],
    device: torch.device | str = "cpu",
) -> Iterator[tuple[np.ndarray, T]]:
    """Places of a batch's rows in the table, and what `forward` makes of the batch, one batch after another.

    Args:
        batches: as `sorted_batches` cuts them; where several workers share a table, this one's.
        forward: takes a collated batch on `device`, without labels; runs in inference mode.
    """
    for indices in batches:
        batch = {name: tensor.to(device) for name, tensor in collator(indices).items() if name != "labels"}
        with torch.inference_mode():
            result = forward(batch)
        yield indices, result


def in_order(parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Arrays [B, ...] of batches that hold every row once, as one [N, ...] in the table's order."""
    order = np.argsort(np.concatenate([indices for indices, _ in parts]))
    return np.concatenate([values for _, values in parts])[order]


def logits_of(model: Any) -> Callable[[dict[str, Tensor]], np.ndarray]:
    """A `forward`: [B, C] float32."""
    return lambda batch: model(**batch).logits.float().cpu().numpy()


def predict_logits(model: Any, collator: Collator, batch_rows: int) -> np.ndarray:
    """[N, C] float32 of every row of the collator's table, in its order; the model's dropout is off."""
    device = next(model.parameters()).device
    batches = sorted_batches(collator.table.lengths, batch_rows)
    return in_order(list(run_batches(collator, batches, logits_of(model), device)))
