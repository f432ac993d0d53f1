"""The layers of one frozen base through which rows of many adapters pass at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from raylora.model.packing import NotPackable
from raylora.model.serving.adapter import LoraSlice, ServedAdapter


@dataclass(frozen=True)
class Group:
    """Neighbouring rows whose adapters have one layout: flat [n, P], or [1, P] where all have the same adapter."""

    rows: slice
    flat: Tensor
    places: Mapping[str, LoraSlice]


@dataclass
class BatchIndex:
    """Whose rows the forward under way holds, read by all layers; rows of one adapter are neighbours."""

    count: int = 0
    groups: Sequence[Group] = ()
    segments: Sequence[tuple[ServedAdapter, slice]] = ()

    def set_adapters(self, adapters: Sequence[ServedAdapter]) -> None:
        """Row i is of `adapters[i]`; equal ones must be neighbours, and equal layouts too."""
        self.count = len(adapters)
        self.segments = [(adapters[s.start], s) for s in _runs(adapters)]
        self.groups = [_group(adapters[s], s) for s in _runs([a.layout for a in adapters])]

    def check(self, name: str, x: Tensor) -> None:
        if len(self.segments) > 1 and x.shape[0] != self.count:
            raise NotPackable(f"{name} is fed {x.shape[0]} rows where the batch has {self.count}.")


def _group(own: Sequence[ServedAdapter], rows: slice) -> Group:
    one = all(adapter is own[0] for adapter in own)
    flat = own[0].flat[None] if one else torch.stack([adapter.flat for adapter in own])
    return Group(rows, flat, own[0].layout.places)


def _runs(values: Sequence[object]) -> list[slice]:
    """Slices of neighbours that are one object."""
    starts = [i for i, value in enumerate(values) if not i or value is not values[i - 1]]
    return [slice(a, b) for a, b in zip(starts, [*starts[1:], len(values)], strict=True)]


class ServedLinear(nn.Module):
    """A frozen linear layer; every row adds the low-rank update of its own adapter."""

    def __init__(self, path: str, linear: nn.Linear, rows: BatchIndex) -> None:
        super().__init__()
        self.path, self.linear, self.rows = path, linear, rows

    def forward(self, x: Tensor) -> Tensor:
        result = self.linear(x)
        for group in self.rows.groups:
            place = group.places.get(self.path)
            if place:
                self.rows.check(self.path, x)
                self._add(result, x, group, place)
        return result

    def _add(self, result: Tensor, x: Tensor, group: Group, place: LoraSlice) -> None:
        """The sum is Hu et al. 2021, eq. 3; one batched product for many adapters is Chen et al. 2023 (Punica)."""
        a, b = place.a(group.flat), place.b(group.flat)
        if len(self.rows.groups) > 1:
            x, result = x[group.rows], result[group.rows]
        if len(group.flat) == 1:
            result += functional.linear(functional.linear(x, a[0]), b[0])
            return
        flat = (len(group.flat), -1)
        inner = torch.bmm(x.reshape(*flat, place.inputs), a.mT)
        result.view(*flat, place.outputs).baddbmm_(inner, b.mT)


class ServedHead(nn.Module):
    """A module that some adapter brings whole: each row passes through its adapter's copy, in fp32, or the base's own.

    Where numbers of outputs differ, rows are padded with zeros to the largest. What comes out is fp32, or where the
    base goes on (`base_goes_on`) what came in.
    """

    def __init__(self, path: str, original: nn.Module, rows: BatchIndex, goes_on: bool) -> None:
        super().__init__()
        self.path, self.original, self.rows, self.goes_on = path, original, rows, goes_on
        floats = (p.dtype for p in original.parameters() if p.is_floating_point())
        self.dtype = next(floats, torch.float32)  # int8 is fed float32

    def forward(self, x: Tensor) -> Tensor:
        segments = self.rows.segments
        if len(segments) == 1:
            return self._run(segments[0][0], x)
        self.rows.check(self.path, x)
        parts = [self._run(adapter, x[rows]) for adapter, rows in segments]
        width = max(part.shape[-1] for part in parts)
        return torch.cat([functional.pad(part, (0, width - part.shape[-1])) for part in parts])

    def _run(self, adapter: ServedAdapter, x: Tensor) -> Tensor:
        own = adapter.heads.get(self.path)
        found = own(x.float()) if own else self.original(x.to(self.dtype))
        return found.to(x.dtype) if self.goes_on else found.float()
