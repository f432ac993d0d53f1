"""A frozen linear layer with its low-rank updates as one step of autograd, for one adapter or many."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from raylora.model.lora.dropout import MaskedDropout

if TYPE_CHECKING:
    from peft import PeftModel


class FusedLora(torch.autograd.Function):
    """x W' + bias + scale * dropped(x) a' b for each of k adapters: PEFT's sum (Hu et al. 2021, eq. 3), with fewer
    copies of [k, n, in] and [k, n, out].

    x [k, n, in], weight [out, in] and bias [out] frozen, a [k, r, in], b [k, r, out], scale [k, 1, 1],
    mask None, [k, n, in] or [1, n, in]. The low-rank part is in a's dtype, the result in x's.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, *rest: Any) -> Tensor:
        scale, mask = rest
        result = functional.linear(x, weight, bias)
        dropped = x.to(a.dtype) if mask is None else x * mask
        inner = torch.bmm(dropped, a.mT).mul_(scale)
        ctx.save_for_backward(weight, a, b, scale, mask, dropped, inner)
        return result.to(a.dtype).baddbmm_(inner, b).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad = grads[0]
        weight, a, b, scale, mask, dropped, inner = ctx.saved_tensors
        wide = grad.to(a.dtype)
        grad_inner = torch.bmm(wide, b.mT).mul_(scale)
        grad_a, grad_b = torch.bmm(grad_inner.mT, dropped), torch.bmm(inner.mT, wide)
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = torch.matmul(grad, weight).to(a.dtype)
            if mask is None:
                grad_x.baddbmm_(grad_inner, a)
            else:
                grad_x.addcmul_(torch.bmm(grad_inner, a), mask)
            grad_x = grad_x.to(grad.dtype)
        return grad_x, None, None, grad_a, grad_b, None, None


def fuse(model: "PeftModel") -> None:
    """Let the LoRA layers of a model in training compute by `FusedLora` on CPUs: a step is a tenth to a sixth shorter.

    Parameters, names and results stay PEFT's. So does the forward of layers that are not plain: DoRA, a trained bias,
    other modules than `nn.Linear`.
    """
    from peft.tuners.lora import LoraLayer

    for layer in model.modules():
        if isinstance(layer, LoraLayer) and _is_plain(layer):
            layer.forward = _fused(layer)


def _is_plain(layer: Any) -> bool:
    linear = layer.get_base_layer()
    frozen = type(linear) is nn.Linear and not any(p.requires_grad for p in linear.parameters())
    return frozen and not layer.lora_variant and layer.lora_B["default"].bias is None


def _fused(layer: Any) -> Any:
    linear, dropout, peft_forward = layer.get_base_layer(), layer.lora_dropout["default"], layer.forward
    scale = torch.full((1, 1, 1), float(layer.scaling["default"]))

    def forward(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if x.device.type != "cpu" or args or kwargs:
            return peft_forward(x, *args, **kwargs)
        a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        mask = dropout.mask(x, a.dtype) if isinstance(dropout, MaskedDropout) else None
        flat = (1, -1, x.shape[-1])
        result = FusedLora.apply(
            x.reshape(flat),
            linear.weight,
            linear.bias,
            a[None],
            b.mT[None],
            scale,
            None if mask is None else mask.view(flat),
        )
        return result.view(*x.shape[:-1], -1)  # pyright: ignore[reportOptionalMemberAccess]

    return forward
