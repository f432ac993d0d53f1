"""`model.pooling`: what the head sees, and that plain PEFT and Transformers see the same."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import AutoPeftModelForSequenceClassification
from tiny import LAYOUTS, OTHERS, demo_splits, make_adapter, save_base, tiny_job

import raylora
from raylora.config import ModelSection
from raylora.errors import ConfigError
from raylora.model.collator import Collator
from raylora.model.fit.fit import fit
from raylora.model.resolved import resolve_job
from raylora.model.serving.base import ServedBase
from raylora.model.tokens import encode, table_of

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


def set_tokenizer(folder: Path, **settings: str) -> None:
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("kind", [*LAYOUTS, *OTHERS])
def test_scores_do_not_depend_on_the_rows_beside_them(kind: str, side: str, tmp_path: Path) -> None:
    """Its config names another token for padding than its tokenizer, as Llama's often do."""
    save_base(kind, tmp_path / "base", pad_token_id=5)
    set_tokenizer(tmp_path / "base", padding_side=side)
    folder = make_adapter(tmp_path / "base", tmp_path / "adapter", ("no", "yes"))
    set_tokenizer(folder, pad_token="[MASK]")  # an adapter brings its own tokenizer
    texts = [*TEXTS, "Fine", "Was it late? It was, by a week, and nobody answers any letter of mine about it!!"]
    predictor = raylora.load(str(folder))
    alone = np.concatenate([predictor.logits([text]) for text in texts])
    assert np.abs(predictor.logits(texts) - alone).max() < 1e-4
    assert np.abs(alone - alone[0]).max() > 1e-2, "the texts differ"
    base = ServedBase(ModelSection(base_model=str(tmp_path / "base")), torch.float32, torch.device("cpu"))
    for served in (base.load(folder), base.load(folder, merged=True)):
        batch = Collator(table_of(encode(texts, served.spec)), served.spec)(np.arange(4))
        assert np.abs(np.stack(base.logits(batch, [served] * 4)) - alone).max() < 1e-4


def test_a_card_tells_plain_transformers_the_padding_that_the_base_does_not(tmp_path: Path) -> None:
    save_base("llama", tmp_path / "base", pad_token_id=5)
    folder = make_adapter(tmp_path / "base", tmp_path / "adapter", ("no", "yes"))
    assert ", pad_token_id=0\n" in (folder / "README.md").read_text()
    plain = AutoPeftModelForSequenceClassification.from_pretrained(str(folder), num_labels=2, pad_token_id=0).eval()
    predictor = raylora.load(str(folder))
    batch = Collator(table_of(encode(TEXTS, predictor.tokenizer_spec)), predictor.tokenizer_spec)(np.arange(2))
    del batch["labels"]
    with torch.inference_mode():
        assert np.allclose(plain(**batch).logits.numpy(), predictor.logits(TEXTS), atol=1e-5)


def test_a_base_that_transformers_cannot_pool_so_is_refused(bases: Bases) -> None:
    for kind, pooling, reason in (
        ("bert", "mean", "classifier of bert does not pool so"),
        ("llama", "mean", "would not load with plain PEFT"),
        ("llama", "cls", "Set auto; modernbert and eurobert have both"),
    ):
        job = tiny_job(bases(kind), model__pooling=pooling)
        with pytest.raises(ConfigError, match=f"model.pooling: {pooling}.*{reason}"):
            fit(resolve_job(job), demo_splits(job, bases(kind), 40))
