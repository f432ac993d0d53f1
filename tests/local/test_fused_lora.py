"""A faster way to PEFT's numbers: the fused LoRA layer."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from tiny import tiny_job

from raylora.model.fit.build import build
from raylora.model.lora.fused import FusedLinear
from raylora.model.resolved import resolve_job

Bases = Callable[[str], Path]


def lora_layers(model: torch.nn.Module) -> list[Any]:
    return [module for module in model.modules() if isinstance(module, LoraLayer)]


def model_of(base: Path, **changes: Any) -> torch.nn.Module:
    """In training, with random matrices B: at zero they hide A's gradients."""
    job = tiny_job(base, lora__target_modules="all-linear", **changes)
    torch.manual_seed(0)
    model = build(resolve_job(job), ("a", "b"), 0)
    for layer in lora_layers(model):
        torch.nn.init.normal_(layer.lora_B["default"].weight, std=0.1)
    return model.train()


def step(model: torch.nn.Module) -> tuple[float, dict[str, torch.Tensor]]:
    """The loss of one batch and every gradient."""
    torch.manual_seed(1)
    rows = {"input_ids": torch.randint(5, 200, (6, 17)), "attention_mask": torch.ones(6, 17, dtype=torch.long)}
    model.zero_grad()
    loss = model(**rows, labels=torch.tensor([0, 1, 1, 0, 1, 0])).loss
    loss.backward()
    return float(loss.detach()), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("kind", ["bert", "distilbert", "modernbert"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("bf16", [False, True])
def test_the_fused_layer_reaches_pefts_loss_and_gradients(
    bases: Bases, kind: str, dropout: float, bf16: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of(bases(kind), lora__lora_dropout=dropout, train__bf16=bf16)
    assert all(isinstance(layer, FusedLinear) and layer._is_plain() for layer in lora_layers(model))
    fused_loss, fused = step(model)
    monkeypatch.setattr(FusedLinear, "_is_plain", lambda layer: False)
    loss, plain = step(model)
    assert fused.keys() == plain.keys()
    assert fused_loss == pytest.approx(loss, rel=1e-2 if bf16 else 1e-5)
    for name, gradient in plain.items():
        scale = float(gradient.abs().max())
        assert float((fused[name] - gradient).abs().max()) <= (0.1 if bf16 else 1e-4) * scale, name


@pytest.mark.parametrize("changes", [{"lora__use_dora": True}, {"lora__bias": "all"}])
def test_layers_that_are_not_plain_keep_pefts_forward(bases: Bases, changes: dict[str, Any]) -> None:
    model = model_of(bases("bert"), **changes)
    assert not any(layer._is_plain() for layer in lora_layers(model))
    step(model)


class Doubled(torch.nn.Linear):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(input)


def test_a_linear_layer_of_another_class_keeps_its_own_forward() -> None:
    base = Doubled(8, 4).requires_grad_(False)
    layer = FusedLinear(base, "default", LoraConfig(r=2), r=2)
    x = torch.randn(3, 8)
    assert torch.allclose(layer(x), 2 * torch.nn.functional.linear(x, base.weight, base.bias)), "B is zero"


def test_the_fused_layer_is_pefts_own_to_disable_merge_and_copy(bases: Bases) -> None:
    model: Any = model_of(bases("bert")).eval()
    rows = {"input_ids": torch.randint(5, 200, (6, 17)), "attention_mask": torch.ones(6, 17, dtype=torch.long)}

    def logits(of: Any) -> torch.Tensor:
        with torch.inference_mode():
            return of(**rows).logits

    adapted = logits(model)
    with model.disable_adapter():
        assert not torch.allclose(logits(model), adapted, atol=1e-2)
    copied = copy.deepcopy(model)
    assert torch.equal(logits(copied), adapted)
    for layer in lora_layers(copied):
        torch.nn.init.zeros_(layer.lora_B["default"].weight)
    assert not torch.allclose(logits(copied), adapted, atol=1e-2), "a copy computes by its own matrices"
    assert torch.equal(logits(model), adapted)
    model.merge_adapter()
    assert torch.allclose(logits(model), adapted, atol=1e-4)
    model.unmerge_adapter()
    assert torch.allclose(logits(model), adapted, atol=1e-4)


def test_what_a_fused_layer_gives_may_be_changed_in_place(bases: Bases) -> None:
    """As DeBERTa and Longformer change their queries."""
    layer = lora_layers(model_of(bases("bert")))[0]
    x = torch.randn(2, 3, layer.in_features, requires_grad=True)

    def gradient(change: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        (found,) = torch.autograd.grad(change(layer(x)).square().sum(), layer.lora_A["default"].weight)
        return found

    expected = gradient(lambda y: y / 2)
    assert torch.allclose(gradient(lambda y: y.div_(2)), expected)
    assert torch.allclose(gradient(lambda y: y.view(2, 3, 2, -1).permute(0, 2, 1, 3).div_(2)), expected)


def test_an_evaluation_drops_nothing(bases: Bases) -> None:
    model = model_of(bases("bert"), lora__lora_dropout=0.5)
    trained = [step(model)[0] for _ in range(2)]
    model.eval()
    assert trained[0] == trained[1] != step(model)[0]
