"""Whatever trains is served: from `fit` to an answer, for every layout and every kind of adapter."""

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import LAYOUTS, OTHERS, demo_splits, make_adapter, tiny_job
from transformers import AutoModelForSequenceClassification

import raylora
from raylora.config import ModelSection
from raylora.model.fit.fit import fit
from raylora.model.resolved import resolve_job
from raylora.model.serving.base import ServedBase
from raylora.model.serving.engine import Engine, Limits
from raylora.model.tokens import encode
from raylora.tasks.functions import softmax

Bases = Callable[[str], Path]
TEXTS = ["Works well.", "It broke after a week and nobody answers.", "Fine", "Late too."]
NORMS = {"distilbert": "sa_layer_norm", "modernbert": "mlp_norm", "llama": "input_layernorm", "gpt2": "ln_1"}
EMBEDDINGS = {"modernbert": "tok_embeddings", "llama": "embed_tokens", "gpt2": "wte"}
OPTIONS: dict[str, Callable[[str], dict[str, Any]]] = {
    "default": lambda kind: {"lora__target_modules": "all-linear"},
    "bias": lambda kind: {"lora__bias": "all"},
    "dora": lambda kind: {"lora__use_dora": True},
    "norm": lambda kind: {"lora__modules_to_save": [NORMS.get(kind, "LayerNorm")]},
    "embeddings": lambda kind: {"lora__modules_to_save": [EMBEDDINGS.get(kind, "word_embeddings")]},
    "own head": lambda kind: {},
    "other head": lambda kind: {},
}


def base_for(option: str, base: Path, folder: Path) -> Path:
    """The base, or a copy that brings a head of its own, for as many labels or more."""
    if not option.endswith("head"):
        return base
    shutil.copytree(base, folder)
    labels = 2 if option == "own head" else 3
    AutoModelForSequenceClassification.from_pretrained(str(base), num_labels=labels).save_pretrained(str(folder))
    return folder


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("kind", [*LAYOUTS, *OTHERS])
def test_what_was_trained_in_bf16_is_served_beside_another_adapter(
    kind: str, option: str, bases: Bases, tmp_path: Path
) -> None:
    base = base_for(option, bases(kind), tmp_path / "base")
    job = tiny_job(base, train__bf16=True, train__head_init="random", **OPTIONS[option](kind))
    fit(resolve_job(job), demo_splits(job, base, 20), save_to=tmp_path / "adapter")
    other = make_adapter(base, tmp_path / "other", ("a", "b", "c"), seed=5)
    expected = [softmax(raylora.load(folder).logits(TEXTS)) for folder in (tmp_path / "adapter", other)]
    for dtype, within in ((torch.float32, 1e-4), (torch.bfloat16, 0.15)):
        served = ServedBase(ModelSection(base_model=str(base)), dtype, torch.device("cpu"))
        adapters = [served.load(folder) for folder in (tmp_path / "adapter", other)]
        engine = Engine(served, Limits(256, 4096, 64), threads=1)
        try:
            found = asyncio.run(answers(engine, adapters))
        finally:
            engine.close()
        for own, right in zip(found, expected, strict=True):
            assert np.abs(softmax(own) - right).max() < within


async def answers(engine: Engine, adapters: list[Any]) -> list[np.ndarray]:
    """Of both adapters at once."""
    return await asyncio.gather(*(engine.logits(adapter, encode(TEXTS, adapter.spec)) for adapter in adapters))
