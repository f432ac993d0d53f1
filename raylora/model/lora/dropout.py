"""LoRA's dropout. In training each row's mask is drawn from (seed, epoch, row, module) alone: any number of workers,
any micro-batch, any padding, any pack of trials and any resumed run drop the same numbers."""

from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from hashlib import blake2b
from math import prod

import numpy as np
import torch
from torch import Tensor, nn

LEVELS = 1 << 16  # a rate is rounded to so many
WARM_UP = 12  # numbers thrown away after seeding, as numpy does
NO_ROW = 1 << 63  # plus the step: for an input that is no row of the batch, as a table of positions


@dataclass(eq=False)
class BatchMasks:
    """The masks of one micro-batch, in one forward.

    Args:
        rows: [B] numbers of the batch's rows in the train split.
        seed, epoch: of the training.
        step: of the epoch.
        pad_left: rows end together, not begin together.
    """

    rows: np.ndarray
    seed: int
    epoch: int
    step: int
    pad_left: bool
    calls: Counter[str] = field(default_factory=Counter[str])  # a module may be called more than once

    def draw(
        self,
        module: str,
        shape: Sequence[int],
        rate: float,
        dtype: torch.dtype,
        device: torch.device,
        calls_with_rows: int | None = None,
    ) -> Tensor:
        """What dropout multiplies an input of this shape by: 0 with probability `rate`, else 1 / (1 - rate).

        [B, T, ...] or [B, ...] is an input of the batch's rows; a row's mask is that of its own tokens, however far the
        batch is padded. Any other input has one mask for all workers; so have the module's calls after
        `calls_with_rows`, of any shape.
        """
        self.calls[module] += 1
        kept = round((1 - rate) * LEVELS)
        if kept in (0, LEVELS):
            return torch.full(tuple(shape), kept // LEVELS, dtype=dtype, device=device)
        has_rows = calls_with_rows is None or self.calls[module] <= calls_with_rows
        is_rows = has_rows and shape[0] == len(self.rows)
        rows = self.rows if is_rows else np.array([NO_ROW + self.step], dtype=np.uint64)
        seeds = _seeds(rows, _module_key(module) + self.calls[module], _epoch_key(self.seed, self.epoch))
        bits = _bits(seeds, prod(shape) // len(rows), device)
        mask = torch.empty(tuple(shape), dtype=dtype, device=device)
        torch.lt(bits.reshape(mask.shape), kept - LEVELS // 2, out=mask)
        mask.mul_(LEVELS / kept)
        return mask.flip(1) if self.pad_left and len(shape) > 2 else mask


@dataclass
class DropoutContext:
    """Whose masks the forward under way takes, read by all `MaskedDropout`s of a model; None: torch's own dropout."""

    masks: BatchMasks | None = None

    @contextmanager
    def of(self, masks: BatchMasks) -> Generator[None]:
        self.masks = masks
        try:
            yield
        finally:
            self.masks = None


class MaskedDropout(nn.Dropout):
    """`nn.Dropout` of a module's input, whose masks in training are those of a `DropoutContext`.

    Args:
        module: its name within the base, the same whether it is trained alone or in a pack.
        calls_with_rows: of `positions.calls_with_rows`.
    """

    def __init__(self, p: float, module: str, context: DropoutContext, calls_with_rows: int | None = None) -> None:
        super().__init__(p)
        self.module, self.context, self.calls_with_rows = module, context, calls_with_rows

    def forward(self, input: Tensor) -> Tensor:
        mask = self.mask(input, input.dtype)
        return input if mask is None else input * mask

    def mask(self, input: Tensor, dtype: torch.dtype) -> Tensor | None:
        """What to multiply the input by; None where nothing is dropped."""
        if not self.training or not self.p:
            return None
        if self.context.masks is None:
            return torch.dropout(torch.ones_like(input, dtype=dtype), self.p, train=True)
        return self.context.masks.draw(self.module, input.shape, self.p, dtype, input.device, self.calls_with_rows)


def dropout_context(model: nn.Module) -> DropoutContext:
    """Of the model's adapter; one that nobody reads where it has no dropout."""
    found = (module.context for module in model.modules() if isinstance(module, MaskedDropout))
    return next(found, DropoutContext())


@cache
def _epoch_key(seed: int, epoch: int) -> int:
    return int(np.random.SeedSequence((seed, epoch)).generate_state(1, np.uint64)[0])


@cache
def _module_key(name: str) -> int:
    """62 bits, so that the number of a call can be added."""
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big") >> 2


def _seeds(rows: np.ndarray, module: int, epoch: int) -> np.ndarray:
    """[rows, 4] states of SFC64 (Doty-Humphrey, PractRand): three words of seed, and the counter at 1."""
    seeds = np.empty((len(rows), 4), dtype=np.uint64)
    seeds[:, 0] = rows
    seeds[:, 1:] = (module, epoch, 1)
    return seeds


def _bits(seeds: np.ndarray, count: int, device: torch.device) -> Tensor:
    """[rows, count] int16, all values alike."""
    return _on_cpu(seeds, count) if device.type == "cpu" else _hashed_places(seeds, count, device)


def _on_cpu(seeds: np.ndarray, count: int) -> Tensor:
    """64 bits of SFC64 are four of them, 0.4 ns each; torch's own generator takes 5."""
    bits = np.random.SFC64(0)
    state = bits.state
    drawn = np.empty((len(seeds), -(-count // 4)), dtype=np.uint64)
    for seed, row in zip(seeds, drawn, strict=True):
        state["state"]["state"] = seed
        bits.state = state
        row[:] = bits.random_raw(WARM_UP + len(row))[WARM_UP:]
    return torch.from_numpy(drawn.view(np.int16)[:, :count])


def _hashed_places(seeds: np.ndarray, count: int, device: torch.device) -> Tensor:
    """A hash of every number's place in its row (Wellons, hash-prospector's lowbias32), reckoned on the device."""
    keys = _on_cpu(seeds, 4).contiguous().view(torch.int32).to(device)
    places = _hashed(torch.arange(count, dtype=torch.int32, device=device) ^ keys[:, :1])
    return _hashed(places ^ keys[:, 1:]).view(torch.int16)[:, ::2]


def _hashed(x: Tensor) -> Tensor:
    """A new int32 of each; torch's shift keeps the sign, which is masked away."""
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B - (1 << 32))):
        x = (x ^ ((x >> shift) & ((1 << (32 - shift)) - 1))) * factor
    return x ^ ((x >> 16) & 0xFFFF)
