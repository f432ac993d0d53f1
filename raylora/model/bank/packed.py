"""One frozen base whose forward carries many adapters, each over rows of its own."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from raylora.model.bank.layers import BankHead, BankLinear, Pack, Stack, run_by_slot
from raylora.model.bank.trial import PackedTrial
from raylora.model.lora.dropout import BatchMasks
from raylora.model.lora.positions import calls_with_rows, is_fed_positions
from raylora.model.packing import NotPackable
from raylora.model.tokens import TokenizerSpec

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class PackedBase:
    """The base, with room for adapters wherever some trial has one; `set_adapters` says whose they are."""

    def __init__(self, model: "PreTrainedModel", spec: TokenizerSpec) -> None:
        self.model, self.spec = model, spec
        self.pack = Pack()
        self.linears: dict[str, BankLinear] = {}
        self.heads: dict[str, BankHead] = {}

    def inject_adapters(self, trial: PackedTrial) -> bool:
        """Replace the modules that this trial adapts by ones that hold many; False if they are replaced already.

        Raises:
            NotPackable: the base draws dropout of its own, which trials would share.
        """
        if any(isinstance(module, nn.Dropout) and module.p > 0 for module in self.model.modules()):
            raise NotPackable(f"{self.model.config.model_type} has dropout that its config does not name.")
        linears = trial.projections.keys() - self.linears.keys()
        for path in linears:
            parent, leaf = self._parent(path)
            self.linears[path] = BankLinear(path, getattr(parent, leaf), self.pack, calls_with_rows(parent, leaf))
            setattr(parent, leaf, self.linears[path])
            if is_fed_positions(parent, leaf):
                run_by_slot(parent, self.pack)
        heads = trial.heads.keys() - self.heads.keys()
        for path in heads:
            parent, leaf = self._parent(path)
            self.heads[path] = BankHead(path, self.pack)
            setattr(parent, leaf, self.heads[path])
        return bool(linears or heads)

    def _parent(self, path: str) -> tuple[nn.Module, str]:
        above, _, leaf = path.rpartition(".")
        return self.model.get_submodule(above), leaf

    def set_adapters(self, trials: Sequence[PackedTrial]) -> None:
        """Lay these trials' weights side by side: slot i is trial i's."""
        for path, linear in self.linears.items():
            linear.stack([trial.projections.get(path) for trial in trials])
        for path, head in self.heads.items():
            head.copies = [trial.heads[path] for trial in trials]

    @property
    def stacks(self) -> list[Stack]:
        return [stack for linear in self.linears.values() for stack in linear.stacks]

    def logits(self, batch: dict[str, Tensor], slots: range, masks: Sequence[BatchMasks] | None = None) -> Tensor:
        """[rows, C] of a batch that holds equally many rows for each slot, one slot after another.

        Args:
            masks: in training, each slot's dropout.
        """
        self.pack.slots, self.pack.rows, self.pack.masks = slots, len(batch["attention_mask"]), masks
        model: Any = self.model
        return model(**{name: values.to(model.device) for name, values in batch.items() if name != "labels"}).logits

    def side_by_side(self, batches: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
        """One batch of all rows, padded to the widest."""
        width = max(batch["attention_mask"].shape[1] for batch in batches)
        names = batches[0].keys()
        return {name: torch.cat([self._padded(name, batch[name], width) for batch in batches]) for name in names}

    def _padded(self, name: str, values: Tensor, width: int) -> Tensor:
        if name == "labels" or values.dim() == 1 or values.shape[1] == width:  # targets may be as many as labels
            return values
        missing = width - values.shape[1]
        ends = (missing, 0) if self.spec.pad_left else (0, missing)
        fill = self.spec.pad_id if name == "input_ids" else 0
        return nn.functional.pad(values, (*(0, 0) * (values.dim() - 2), *ends), value=fill)
