"""The frozen base in int8, on CPUs: weights by output channel, activations by call; adapters and heads stay in fp32."""

import warnings
from typing import TYPE_CHECKING

from torch import nn
from torch.ao.nn.quantized.dynamic import Linear as Int8Linear
from torch.ao.quantization import per_channel_dynamic_qconfig

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Int8Linear", "held_bytes", "to_int8"]


def to_int8(model: "PreTrainedModel") -> None:
    """Replace, in place, every linear layer of the stack of layers; embeddings, norms and the head are left.

    torch's dynamic quantization: https://docs.pytorch.org/docs/stable/quantization.html
    """
    stacks = [module for module in model.base_model.modules() if isinstance(module, nn.ModuleList)]
    parents = {parent for stack in stacks for parent in stack.modules()}
    with warnings.catch_warnings():  # torch 2.13 says that it will move to another package one day
        warnings.simplefilter("ignore")
        for parent in parents:
            for name, child in parent.named_children():
                if type(child) is nn.Linear:
                    child.qconfig = per_channel_dynamic_qconfig  # pyright: ignore[reportArgumentType]
                    setattr(parent, name, Int8Linear.from_float(child))


def held_bytes(model: nn.Module) -> int:
    """Memory of all weights; int8 ones are no parameters of their module."""
    packed = sum(m.in_features * m.out_features for m in model.modules() if isinstance(m, Int8Linear))
    return packed + sum(p.numel() * p.element_size() for p in model.parameters())
