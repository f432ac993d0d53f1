"""A frozen linear layer with its low-rank updates as one step of autograd, for one adapter or many."""

from typing import Any

import torch
from peft.tuners.lora import Linear
from torch import Tensor, nn

from raylora.model.lora.dropout import MaskedDropout


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`functional.linear` into memory of its own: what that returns is a view, which may not be changed in place where
    a custom Function hands it on, as DeBERTa and Longformer change their queries."""
    result = x.new_empty(*x.shape[:-1], len(weight))
    rows, flat = x.reshape(-1, x.shape[-1]), result.view(-1, len(weight))
    if bias is None:
        torch.mm(rows, weight.mT, out=flat)
    else:
        torch.addmm(bias, rows, weight.mT, out=flat)
    return result


class FusedLora(torch.autograd.Function):
    """x W' + bias + scale * dropped(x) a' b for each of k adapters: PEFT's sum (Hu et al. 2021, eq. 3), with fewer
    copies of [k, n, in] and [k, n, out].

    x [k, ..., in] or, where k is 1, [..., in], weight [out, in] and bias [out] frozen, a [k, r, in], b [k, r, out],
    scale [k, 1, 1], mask None or [k, n, in] or [1, n, in], with n all of x's inner sizes together. The low-rank part is
    in a's dtype, the result, of x's shape, in x's; it is no view, as some models change it in place.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, *rest: Any) -> Tensor:
        scale, mask = rest
        result = _linear(x, weight, bias).to(a.dtype)
        flat = x.reshape(len(a), -1, x.shape[-1])
        dropped = flat.to(a.dtype) if mask is None else flat * mask
        inner = torch.bmm(dropped, a.mT).mul_(scale)
        ctx.save_for_backward(weight, a, b, scale, mask, dropped, inner)
        result.view(len(a), -1, result.shape[-1]).baddbmm_(inner, b)
        return result.to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad = grads[0]
        weight, a, b, scale, mask, dropped, inner = ctx.saved_tensors
        wide = grad.reshape(len(a), -1, grad.shape[-1]).to(a.dtype)
        grad_inner = torch.bmm(wide, b.mT).mul_(scale)
        grad_a, grad_b = torch.bmm(grad_inner.mT, dropped), torch.bmm(inner.mT, wide)
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = torch.matmul(grad, weight).to(a.dtype)
            flat = grad_x.view(len(a), -1, grad_x.shape[-1])
            if mask is None:
                flat.baddbmm_(grad_inner, a)
            else:
                flat.addcmul_(torch.bmm(grad_inner, a), mask)
            grad_x = grad_x.to(grad.dtype)
        return grad_x, None, None, grad_a, grad_b, None, None


class FusedLinear(Linear):
    """PEFT's LoRA layer of an `nn.Linear`; in a CPU's forward of one plain adapter its sums are a `FusedLora`.

    Parameters, names and results stay PEFT's, and so do merging, `disable_adapter` and copies. PEFT's own forward also
    runs DoRA, a trained bias, and batches that mix adapters.
    """

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if args or kwargs or x.device.type != "cpu" or not self._is_plain():
            return super().forward(x, *args, **kwargs)
        (name,) = self.active_adapters
        linear: Any = self.get_base_layer()
        dropout, a, b = self.lora_dropout[name], _weight(self.lora_A[name]), _weight(self.lora_B[name])
        mask = dropout.mask(x, a.dtype) if isinstance(dropout, MaskedDropout) else None
        mask = None if mask is None else mask.view(1, -1, x.shape[-1])
        scale = torch.full((1, 1, 1), float(self.scaling[name]))
        return FusedLora.apply(x, linear.weight, linear.bias, a[None], b.mT[None], scale, mask)  # pyright: ignore

    def _is_plain(self) -> bool:
        names = self.active_adapters
        linear: Any = self.get_base_layer()
        if self.disable_adapters or self.merged or len(names) != 1 or names[0] not in self.lora_A or self.lora_variant:
            return False
        # a subclass may compute something else, and what trains its own weights needs their gradients
        if type(linear) is not nn.Linear or linear.weight.requires_grad:
            return False
        bias = _bias(linear)
        return (bias is None or not bias.requires_grad) and _bias(self.lora_B[names[0]]) is None


def _weight(linear: Any) -> Tensor:
    return linear.weight


def _bias(linear: Any) -> Tensor | None:
    return linear.bias
