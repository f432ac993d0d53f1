"""`model.pooling`: what the head sees, and that plain PEFT and Transformers see the same."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import AutoPeftModelForSequenceClassification
from tiny import demo_splits, tiny_job

import raylora
from raylora.config import ModelSection
from raylora.errors import ConfigError
from raylora.model.fit.fit import fit
from raylora.model.resolved import resolve_job
from raylora.model.serving.base import ServedBase
from raylora.model.tokens import Collator, encode, table_of

Bases = Callable[[str], Path]
TEXTS = ["Beautifully made, and a pleasure to use.", "Broken on arrival."]


@pytest.fixture(scope="module")
def adapters(bases: Bases, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One adapter for each pooling, of the same rows and seed."""
    folders: dict[str, Path] = {}
    for pooling in ("cls", "mean"):
        job = tiny_job(bases("modernbert"), model__pooling=pooling)
        folders[pooling] = tmp_path_factory.mktemp(pooling) / "adapter"
        fit(resolve_job(job), demo_splits(job, bases("modernbert"), 60), save_to=folders[pooling])
    return folders


def test_plain_peft_and_transformers_load_what_raylora_loads(adapters: dict[str, Path]) -> None:
    found: dict[str, np.ndarray] = {}
    for pooling, folder in adapters.items():
        predictor = raylora.load(str(folder))
        found[pooling] = predictor.logits(TEXTS)
        assert (f'classifier_pooling="{pooling}"') in (folder / "README.md").read_text()
        plain = AutoPeftModelForSequenceClassification.from_pretrained(
            str(folder), num_labels=2, classifier_pooling=pooling
        ).eval()
        spec = predictor.tokenizer_spec
        for row, text in enumerate(TEXTS):
            batch = Collator(table_of(encode([text], spec)), spec)(np.arange(1))
            del batch["labels"]
            with torch.inference_mode():
                assert np.allclose(plain(**batch).logits.numpy()[0], found[pooling][row], atol=1e-5)
    assert np.abs(found["cls"] - found["mean"]).max() > 1e-3


def test_an_endpoint_answers_for_both_at_once(adapters: dict[str, Path], bases: Bases) -> None:
    model = ModelSection(base_model=str(bases("modernbert")), pooling="cls")
    base = ServedBase(model, torch.float32, torch.device("cpu"))
    for folder in adapters.values():
        served = base.load(folder)
        table = table_of(encode(TEXTS, served.spec))
        logits = base.logits(Collator(table, served.spec)(np.arange(2)), [served, served])
        assert np.allclose(np.stack(logits), raylora.load(str(folder)).logits(TEXTS), atol=1e-4)


def test_a_base_that_transformers_cannot_pool_so_is_refused(bases: Bases) -> None:
    for kind, pooling, reason in (
        ("bert", "mean", "classifier of bert does not pool so"),
        ("llama", "mean", "would not load with plain PEFT"),
        ("llama", "cls", "Set auto; modernbert and eurobert have both"),
    ):
        job = tiny_job(bases(kind), model__pooling=pooling)
        with pytest.raises(ConfigError, match=f"model.pooling: {pooling}.*{reason}"):
            fit(resolve_job(job), demo_splits(job, bases(kind), 40))
