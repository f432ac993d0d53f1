"""The layers of one frozen base that carry many adapters: the rows of a batch belong to one trial after another."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from raylora.model.lora.dropout import BatchMasks
from raylora.model.lora.fused import FusedLora
from raylora.model.packing import NotPackable


@dataclass
class Pack:
    """Whose rows the forward under way holds, read by all layers: equally many for each slot, one after another.

    `rows` is the batch's (None: one slot alone, anything may be fed); `masks` has one entry per slot, the same one for
    slots that drop the same, and is None where nothing is dropped. `by_slot`: some layers run for one slot after
    another.
    """

    slots: range = range(0)
    rows: int | None = None
    masks: Sequence[BatchMasks] | None = None
    by_slot: bool = False


@dataclass(frozen=True)
class Projection:
    """One trial's adapter of one linear layer, as PEFT has it: a [r, in], b [out, r]."""

    a: nn.Parameter
    b: nn.Parameter
    scale: float
    dropout: float


class Stack:
    """One matrix of every slot in one leaf tensor, `values` [k, r, n]: a slot's parameter is a view of its part.

    Ranks are padded with zeros, and a slot without a parameter has zeros alone: they add nothing, and no optimizer
    holds them. `transposed` parameters are [n, r], others [r, n].
    """

    def __init__(self, slots: Sequence[nn.Parameter | None], transposed: bool) -> None:
        self.transposed = transposed
        self.places = [(i, parameter) for i, parameter in enumerate(slots) if parameter is not None]
        shapes = [self._flip(parameter.data).shape for _, parameter in self.places]
        like = self.places[0][1].data
        self.values = like.new_zeros(len(slots), max(shape[0] for shape in shapes), shapes[0][1])
        for parameter, part in self._parts(self.values):
            part.copy_(parameter.data)
            parameter.data = part
        self.values.requires_grad_()

    def share_gradient(self) -> None:
        """Let every parameter's gradient be its part of the stack's; None where the layer took no part."""
        if self.values.grad is not None:
            for parameter, part in self._parts(self.values.grad):
                parameter.grad = part

    def _parts(self, values: Tensor) -> Iterator[tuple[nn.Parameter, Tensor]]:
        for i, parameter in self.places:
            yield parameter, self._flip(values[i, : self._flip(parameter.data).shape[0]])

    def _flip(self, matrix: Tensor) -> Tensor:
        return matrix.mT if self.transposed else matrix


class BankLinear(nn.Module):
    """A frozen linear layer with every slot's low-rank update."""

    def __init__(self, name: str, linear: nn.Linear, pack: Pack, calls_with_rows: int | None) -> None:
        super().__init__()
        self.name, self.linear, self.pack, self.calls_with_rows = name, linear, pack, calls_with_rows
        self.stacks: tuple[Stack, ...] = ()

    def stack(self, members: Sequence[Projection | None]) -> None:
        """Hold these slots' adapters; None where a slot has nothing on this layer."""
        self.stacks = ()
        if any(members):
            a = Stack([member and member.a for member in members], transposed=False)
            b = Stack([member and member.b for member in members], transposed=True)
            self.stacks = (a, b)
            self.scale = a.values.new_tensor([member.scale if member else 1.0 for member in members])[:, None, None]
            self.dropout = [member.dropout if member else 0.0 for member in members]

    def forward(self, x: Tensor) -> Tensor:
        if not self.stacks:
            return self.linear(x)
        slots = self.pack.slots
        _check_rows(self.name, x, self.pack)
        mask = self._mask(x)
        flat = (len(slots), -1, x.shape[-1])
        held = slice(slots.start, slots.stop)
        a, b = (stack.values if len(slots) == len(self.dropout) else stack.values[held] for stack in self.stacks)
        result = FusedLora.apply(
            x.reshape(flat),
            self.linear.weight,
            self.linear.bias,
            a,
            b,
            self.scale[held],
            None if mask is None else mask.flatten(1, -2),
        )
        return result.view(*x.shape[:-1], -1)  # pyright: ignore[reportOptionalMemberAccess]

    def _mask(self, x: Tensor) -> Tensor | None:
        """What dropout multiplies x by: [k, ...], or [1, ...] where all slots draw the same.

        Drawn as `MaskedDropout` draws for each trial alone; slots share a draw where they can.
        """
        rates = [self.dropout[slot] for slot in self.pack.slots]
        if self.pack.masks is None or not any(rates):
            return None
        shape = (x.shape[0] // len(rates), *x.shape[1:])
        own = list(zip(self.pack.masks, rates, strict=True))
        drawn = {(masks, rate): self._drawn(masks, shape, rate) for masks, rate in dict.fromkeys(own)}
        return torch.stack([drawn[one] for one in (own if len(drawn) > 1 else drawn)])

    def _drawn(self, masks: BatchMasks, shape: Sequence[int], rate: float) -> Tensor:
        like = self.scale
        if not rate:  # a slot that has nothing on this layer
            return like.new_ones(*shape)
        return masks.draw(self.name, shape, rate, like.dtype, like.device, self.calls_with_rows)


class BankHead(nn.Module):
    """A module that every slot trains whole: k copies, each fed its own rows, in its own dtype."""

    def __init__(self, name: str, pack: Pack) -> None:
        super().__init__()
        self.name, self.pack = name, pack
        self.copies: list[nn.Module] = []  # a plain list: parameters belong to the trials, not to the base

    def forward(self, x: Tensor) -> Tensor:
        _check_rows(self.name, x, self.pack)
        copies = [self.copies[slot] for slot in self.pack.slots]
        parts = x.chunk(len(copies))
        return torch.cat([copy(part) for copy, part in zip(copies, parts, strict=True)])


def _check_rows(name: str, x: Tensor, pack: Pack) -> None:
    if pack.rows not in (None, x.shape[0]):
        raise NotPackable(f"{name} is fed {x.shape[0]} rows where the batch has {pack.rows}.")


def run_by_slot(attention: nn.Module, pack: Pack) -> None:
    """Make DeBERTa's attention run for one slot after another: one forward gives only one slot's positions."""
    pack.by_slot = True
    if "forward" in vars(attention):
        return
    one_slot = attention.forward

    def forward(hidden_states: Tensor, attention_mask: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, None]:
        whole, count = replace(pack), len(pack.slots)
        outputs: list[Tensor] = []
        for i, parts in enumerate(zip(hidden_states.chunk(count), attention_mask.chunk(count), strict=True)):
            pack.slots, pack.rows = whole.slots[i : i + 1], None
            pack.masks = whole.masks[i : i + 1] if whole.masks else None
            outputs.append(one_slot(*parts, *args, **kwargs)[0])
        pack.slots, pack.rows, pack.masks = whole.slots, whole.rows, whole.masks
        return torch.cat(outputs), None

    attention.forward = forward
