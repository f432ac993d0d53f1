"""LoRA's dropout on CPUs, where torch's own, one number after another, is a third of a training step."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

LEVELS = 1 << 16  # a rate is rounded to so many


def draw_mask(
    shape: Sequence[int], rate: float, dtype: torch.dtype, device: torch.device, generator: torch.Generator | None
) -> Tensor:
    """What dropout multiplies its input by: 0 with probability `rate`, else 1 / (1 - rate).

    On a CPU torch's Mersenne twister takes 5 ns an element. Here it gives one seed, and numpy's SFC64 (Doty-Humphrey,
    PractRand) 64 bits for four elements: 0.4 ns each. So torch's state still decides every mask.

    Args:
        generator: torch's; None = the default one.
    """
    mask = torch.empty(*shape, dtype=dtype, device=device)
    if mask.device.type != "cpu":
        return mask.bernoulli_(1 - rate, generator=generator).div_(1 - rate)
    kept = round((1 - rate) * LEVELS)
    if kept in (0, LEVELS):
        return mask.fill_(kept // LEVELS)
    seed = int(torch.empty((), dtype=torch.int64).random_(generator=generator))
    drawn = np.random.SFC64(seed).random_raw(-(-mask.numel() // 4)).view(np.int16)[: mask.numel()]
    torch.lt(torch.from_numpy(drawn).view(mask.shape), kept - LEVELS // 2, out=mask)
    return mask.mul_(LEVELS / kept)


class MaskedDropout(nn.Dropout):
    """`nn.Dropout` with the mask of `draw_mask`; on other devices than a CPU, torch's own."""

    def forward(self, input: Tensor) -> Tensor:
        if input.device.type != "cpu":
            return super().forward(input)
        mask = self.mask(input, input.dtype)
        return input if mask is None else input * mask

    def mask(self, input: Tensor, dtype: torch.dtype) -> Tensor | None:
        """What to multiply the input by; None where nothing is dropped."""
        if not self.training or not self.p:
            return None
        return draw_mask(input.shape, self.p, dtype, input.device, None)
