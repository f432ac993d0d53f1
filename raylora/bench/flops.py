"""How much arithmetic training holds, and how much of it this machine can do: model FLOP/s over the matmul peak."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from raylora.model.collator import Collator

if TYPE_CHECKING:
    from peft import PeftModel

SIZES, TRIES = (1024, 1536, 2048), 12


def _baddbmm(added: Sequence[int], a: Sequence[int], b: Sequence[int], **_: Any) -> int:
    return 2 * a[0] * a[1] * a[2] * b[2]


IN_PLACE = {torch.ops.aten.baddbmm_: _baddbmm}  # `FusedLora`'s, which torch does not count by itself


def flops_per_row(model: "PeftModel", collator: Collator) -> float:
    """FLOPs of the matrix products that one row's forward and backward need, padding left out: mean over the table.

    torch counts them on one row of each length, in eager attention, which it can see. A linear layer of P weights
    costs 2 P a token forward and 2 P back to its input; 2 P more where its own weights are trained, and nothing back
    where nothing below it is. Attention over T tokens of H numbers costs a token 4 T H a layer forward, 8 T H back.
    So about 4 P + 12 T H a layer, against 6 P + 12 T H where all is trained (Chowdhery et al. 2022, appendix B).

    Args:
        model: on the CPU; its gradients are left changed.
    """
    base: Any = model.get_base_model()
    base.set_attn_implementation("eager")
    _, first, counts = np.unique(collator.table.lengths, return_index=True, return_counts=True)
    total = 0
    for index, count in zip(first, counts, strict=True):
        with FlopCounterMode(display=False, custom_mapping=IN_PLACE) as counter:
            model(**collator(np.array([index]))).loss.backward()
        total += int(count) * counter.get_total_flops()
    return total / counts.sum()


def matmul_peak(dtype: torch.dtype) -> float:
    """FLOP/s of the fastest square matrix product on torch's threads: the best of 12 at each of three sizes."""
    return max(2 * size**3 / _fastest_s(size, dtype) for size in SIZES)


def _fastest_s(size: int, dtype: torch.dtype) -> float:
    a, b = torch.randn(size, size).to(dtype), torch.randn(size, size).to(dtype)
    times: list[float] = []
    with torch.inference_mode():
        for _ in range(TRIES):
            start = time.perf_counter()
            torch.mm(a, b)
            times.append(time.perf_counter() - start)
    return min(times)
