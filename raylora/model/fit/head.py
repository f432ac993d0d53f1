"""The head of a classifier: its last linear layer, the features that this layer sees, and where its weights start."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from raylora.model.collator import Collator
from raylora.model.predict import ALL, Share, in_order, run_batches
from raylora.model.windows import pool, sequences
from raylora.tasks import Units

if TYPE_CHECKING:
    from raylora.model.fit.splits import Splits


@dataclass(frozen=True)
class Features:
    """What a frozen base says of rows: `head` [N, F] is what the head's last linear layer sees, None where there is no
    new one (`last_linear`); `mean` [N, H] the mean of the last hidden states over a row's tokens; float32. Of rows in
    windows, the mean of these."""

    head: np.ndarray | None
    mean: np.ndarray


class NotProbed(Exception):  # noqa: N818 - what the base is
    """A base that no probe can be fitted on; the message says why."""


@dataclass(frozen=True)
class HeadStart:
    """First weights of the head's last linear layer, as `Probe` has them: weight [C, F], bias [C]."""

    weight: np.ndarray
    bias: np.ndarray


def last_linear(model: nn.Module) -> tuple[nn.Module, str] | None:
    """The last linear layer of a new head (PEFT's copy of it, where there is one): its parent, and its name there.

    None where the head is the base's own, trained already, or where code that comes with a base may do anything.
    """
    base = _base_of(model)
    if not type(base).__module__.startswith("transformers.models."):
        return None
    # XLM-RoBERTa's head stands before its encoder
    heads = [name for name in base.new_modules if not name.startswith(f"{base.base_model_prefix}.")]
    inside = tuple(f"{head}." for head in heads)
    names = [n for n, m in base.named_modules() if isinstance(m, nn.Linear) and (n in heads or n.startswith(inside))]
    if not names:
        return None
    above, _, leaf = names[-1].rpartition(".")
    parent = base.get_submodule(above)
    return (parent, leaf) if getattr(parent, leaf).out_features == base.config.num_labels else None


def draws_below_last(model: nn.Module) -> bool:
    """Whether the seed decides what the head's last linear layer sees, as DistilBERT's `pre_classifier` is new, too.

    Args:
        model: as `build` makes it.
    """
    if (found := last_linear(model)) is None:
        return False
    own = {id(parameter) for parameter in getattr(*found).parameters()}
    trained = {name: id(parameter) for name, parameter in model.named_parameters() if parameter.requires_grad}
    return any("lora_" not in name and each not in own for name, each in trained.items())


def brings_head(model: nn.Module) -> bool:
    """Whether all of the head came with the base's weights."""
    return not _base_of(model).new_modules


def _base_of(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def start_head(model: nn.Module, start: HeadStart) -> None:
    """Write a start's weights into the head, in place; a layer without a bias takes the weights alone."""
    found = last_linear(model)
    assert found is not None, "a start is made of the features of a last linear layer"
    layer: Any = getattr(*found)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(start.weight))
        if layer.bias is not None:
            layer.bias.copy_(torch.from_numpy(start.bias))


def units_of(splits: "Splits", model: nn.Module) -> Units:
    """What the model's outputs are measured in while it is trained; `fold` takes it into the head.

    Where `fold` cannot, outputs are in the labels' own unit; where the layer has no bias, they are not shifted.
    """
    units, found = splits.task.units(splits.train.targets, len(splits.labels)), last_linear(model)
    if found is None:
        return Units(np.ones_like(units.scale), np.zeros_like(units.shift))
    return units if getattr(*found).bias is not None else replace(units, shift=np.zeros_like(units.shift))


def fold(model: nn.Module, units: Units, temperature: float = 1.0) -> None:
    """Let the head's outputs be `units.of(outputs) / temperature`, in place; nothing to do where there is no layer."""
    found = last_linear(model)
    if found is None:
        return
    layer: Any = getattr(*found)
    with torch.no_grad():
        layer.weight.mul_(torch.as_tensor(units.scale / temperature).to(layer.weight)[:, None])
        if layer.bias is not None:
            layer.bias.mul_(torch.as_tensor(units.scale / temperature).to(layer.bias))
            layer.bias.add_(torch.as_tensor(units.shift / temperature).to(layer.bias))


@contextmanager
def headless(model: Any) -> Generator[list[Tensor]]:
    """While this is open, the model's logits are what its last linear layer would see, pooled as the architecture
    pools, where it has a new one; the list yielded gets each forward's last hidden states [B, T, H]."""
    found, states = last_linear(model), list[Tensor]()
    hook = _base_of(model).base_model.register_forward_hook(lambda module, args, output: states.append(output[0]))
    layer = getattr(*found) if found else None
    if found:
        setattr(*found, nn.Identity())
    try:
        yield states
    finally:
        if found:
            setattr(*found, layer)
        hook.remove()


Part = tuple[np.ndarray, Features]  # places of some rows in a table, and their features


def features(model: Any, collator: Collator, batch_rows: int, share: Share = ALL) -> list[Part]:
    """Features of the collator's table, or of a worker's share of its batches, from the model as it stands, its dropout
    off.

    Args:
        model: on its device; plain, or PEFT's with an adapter that adds nothing yet.
        batch_rows, share: of `run_batches`.

    Raises:
        NotProbed: the base's last hidden states are not one for each token.
    """
    model.eval()
    is_new = last_linear(model) is not None
    with headless(model) as states:

        def forward(batch: dict[str, Tensor]) -> Features:
            seen = model(**sequences(batch)).logits
            if not states or states[-1].ndim != 3 or states[-1].shape[:2] != batch["input_ids"].shape:
                raise NotProbed("the base's last hidden states are not one for each token")
            weights = batch["attention_mask"][..., None].float()
            means = (states.pop().float() * weights).sum(1) / weights.sum(1)
            if "windows" in batch:
                seen, means = (pool(values, batch["windows"], "mean") for values in (seen, means))
            return Features(seen.float().cpu().numpy() if is_new else None, means.cpu().numpy())

        return list(run_batches(collator, batch_rows, forward, next(model.parameters()).device, share))


def join(parts: Sequence[Part]) -> Features:
    """All rows of a table, in its order."""
    heads = [(indices, part.head) for indices, part in parts if part.head is not None]
    return Features(in_order(heads) if heads else None, in_order([(indices, part.mean) for indices, part in parts]))
