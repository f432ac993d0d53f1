"""Long texts in this process: what is cut decides what can be learned, and windows are one maths wherever they run."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from tiny import largest_difference, make_adapter, tiny_job

import raylora
from raylora.config import Job, ModelSection
from raylora.model.base.load import load_tokenizer
from raylora.model.collator import Collator
from raylora.model.fit import fit as module
from raylora.model.fit.build import build
from raylora.model.fit.callback import Event
from raylora.model.fit.fit import FitResult, fit
from raylora.model.fit.head import features, join
from raylora.model.fit.splits import Splits
from raylora.model.frozen_states import agrees, fill
from raylora.model.lora.manifest import read_manifest
from raylora.model.lora.save import trainable_state
from raylora.model.resolved import resolve_job
from raylora.model.serving.base import ServedBase
from raylora.model.serving.engine import Batch, Engine, Limits
from raylora.model.tokens import encode, spec_for, table_of, tokenizer_spec

Bases = Callable[[str], Path]
LENGTH = 16  # 14 tokens of text: two windows of a text of 20 words, three of one of 30
FILLER = ("the", "it", "and", "was", "for", "this", "that", "with", "have", "but")
LABELS = ("bad", "good")


def long_job(base: Path, **changes: Any) -> Job:
    return tiny_job(base, data__max_length=LENGTH, **changes)


def documents(at: float, rows: int, words: tuple[int, int]) -> list[str]:
    """So many words, in turn one that says bad and one that says good, at this part of the text; all others say
    nothing."""
    random = np.random.default_rng(0)
    texts: list[str] = []
    for i in range(rows):
        text = list(random.choice(FILLER, int(random.integers(*words)) - 1))
        text.insert(round(at * len(text)), LABELS[i % 2])
        texts.append(" ".join(text))
    return texts


def splits_of(job: Job, texts: list[str]) -> Splits:
    """A third is for validation."""
    rows = np.arange(len(texts))
    forms: dict[str, np.ndarray] = {
        "single_label_classification": rows % 2,
        "multi_label_classification": np.eye(2, dtype=np.float32)[rows % 2],
        "regression": (rows % 2)[:, None].astype(np.float32),
    }
    spec, task = spec_for(load_tokenizer(job.model.base_model), job.data), job.task
    table = replace(table_of(encode(texts, spec)), targets=forms[task.problem_type])
    labels = LABELS if task.has_classes else ("rating",)
    third = len(texts) // 3
    return Splits(table.take(rows[third:]), table.take(rows[:third]), None, labels, spec, {}, task=task)


def run(job: Job, splits: Splits, **options: Any) -> FitResult:
    return fit(resolve_job(job), splits, **options)


@pytest.mark.parametrize(
    ("at", "truncation", "learns"),
    [
        (1.0, "end", False),
        (1.0, "start", True),
        (1.0, "middle", True),
        (0.5, "start", False),
        (0.5, "middle", False),
        (0.5, "windows", True),
    ],
)
def test_a_word_is_learned_where_it_is_not_cut(bases: Bases, at: float, truncation: str, learns: bool) -> None:
    """30 words of which 14 are kept: of the middle word and the last one, some truncations see nothing."""
    job = long_job(bases("bert"), data__truncation=truncation, train__num_train_epochs=8 if learns else 2)
    accuracy = run(job, splits_of(job, documents(at, 96, (30, 31)))).validation["accuracy"]
    assert accuracy > 0.9 if learns else accuracy < 0.75


def windowed(base: Path, stride: int = 2, **changes: Any) -> Job:
    return long_job(base, data__truncation="windows", data__stride=stride, **changes)


VARIED = documents(1.0, 36, (5, 40))  # of one to three windows


def test_rows_of_several_windows_step_the_same_in_one_micro_batch_or_two(bases: Bases) -> None:
    """With dropout: a window's draws do not depend on the batch it is in."""
    records: list[Event] = []
    job = windowed(bases("bert"), lora__lora_dropout=0.3, train__logging_steps=1)
    splits = splits_of(job, VARIED)
    whole = run(job, splits, log=records.append)
    cut = {"train.per_device_train_batch_size": 4, "train.gradient_accumulation_steps": 2}
    halves = run(job.replace(cut), splits, log=records.append)
    losses = [record["loss"] for record in records if record["kind"] == "loss"]
    assert whole.steps == halves.steps == 3
    assert losses[3:] == pytest.approx(losses[:3], abs=1e-4)
    assert largest_difference(trainable_state(whole.model), trainable_state(halves.model)) < 1e-3


def test_windows_of_one_row_drop_different_numbers(bases: Bases) -> None:
    """Two equal windows under dropout teach something else than one of them alone."""
    job = windowed(bases("bert"), stride=0, lora__lora_dropout=0.5, train__logging_steps=1)
    once, losses = "the good and it was for this that with have but the it and", list[float]()
    for text in (once, f"{once} {once}"):
        records: list[Event] = []
        run(job.replace({"train.head_init": "random"}), splits_of(job, [text] * 36), log=records.append)
        losses.append([record["loss"] for record in records if record["kind"] == "loss"][-1])
    assert losses[0] != pytest.approx(losses[1], abs=1e-5)


@pytest.mark.parametrize(
    ("kind", "problem_type"),
    [
        ("bert", "single_label_classification"),
        ("bert", "multi_label_classification"),
        ("bert", "regression"),
        ("llama", "single_label_classification"),
    ],
)
def test_a_text_in_windows_is_scored_predicted_and_served_alike(
    kind: str, problem_type: str, bases: Bases, tmp_path: Path
) -> None:
    job = windowed(bases(kind), data__problem_type=problem_type, train__floor=True)
    splits = splits_of(job, VARIED)
    fitted = run(job, splits, save_to=tmp_path / "adapter")
    assert fitted.floor is not None
    predictor = raylora.load(tmp_path / "adapter")
    logits = predictor.logits(VARIED[:12])
    thresholds = predictor.manifest.thresholds
    known = None if thresholds is None else np.array([thresholds[label] for label in LABELS])
    again = splits.task.score(logits, splits.validation.targets, known)
    assert again.as_dict() == pytest.approx(fitted.validation.as_dict(), abs=1e-4)
    (answers,) = asyncio.run(served(bases(kind), [tmp_path / "adapter"], VARIED))
    assert np.abs(answers - predictor.logits(VARIED)).max() < 1e-4


async def served(base: Path, folders: list[Path], texts: list[str]) -> list[np.ndarray]:
    """By each adapter of a base, all at once, in batches of at most 100 tokens."""
    own = ServedBase(ModelSection(base_model=str(base)), torch.float32, torch.device("cpu"))
    adapters = [own.load(folder) for folder in folders]
    engine = Engine(own, Limits(100, 10**6, 64), threads=1)
    try:
        return await asyncio.gather(*(engine.logits(adapter, encode(texts, adapter.spec)) for adapter in adapters))
    finally:
        engine.close()


def with_settings(folder: Path, **settings: Any) -> Path:
    """Other words in an adapter's manifest."""
    manifest = json.loads((folder / "raylora.json").read_text())
    (folder / "raylora.json").write_text(json.dumps(manifest | settings))
    return folder


def test_adapters_of_several_tasks_and_truncations_are_asked_at_once(bases: Bases, tmp_path: Path) -> None:
    base = bases("bert")
    words: dict[str, Any] = {"max_length": LENGTH, "truncation": "windows", "max_windows": 3}
    folders = [
        with_settings(make_adapter(base, tmp_path / "mean", LABELS, seed=1), **words),
        with_settings(
            make_adapter(base, tmp_path / "max", ("a", "b", "c"), seed=2),
            problem_type="multi_label_classification",
            **words,
        ),
        with_settings(make_adapter(base, tmp_path / "end", LABELS, seed=3), max_length=LENGTH),
    ]
    found = asyncio.run(served(base, folders, VARIED))
    alone = [raylora.load(folder).logits(VARIED) for folder in folders]
    for own, right in zip(found, alone, strict=True):
        assert np.abs(own - right).max() < 1e-4
    merged = ServedBase(ModelSection(base_model=str(base)), torch.float32, torch.device("cpu"))
    adapter = merged.load(folders[1], merged=True)
    batch = Collator(table_of(encode(VARIED, adapter.spec)), adapter.spec)(np.arange(len(VARIED)))
    assert np.abs(np.stack(merged.logits(batch, [adapter] * len(VARIED))) - alone[1]).max() < 1e-3


def test_a_row_of_windows_waits_with_all_their_tokens(bases: Bases, tmp_path: Path) -> None:
    """Three windows of 16 with their padding; the meters count real tokens."""
    words: dict[str, Any] = {"max_length": LENGTH, "truncation": "windows", "max_windows": 3}
    folder = with_settings(make_adapter(bases("bert"), tmp_path / "a", LABELS), **words)
    base = ServedBase(ModelSection(base_model=str(bases("bert"))), torch.float32, torch.device("cpu"))
    batches: list[Batch] = []
    adapter = base.load(folder)
    engine = Engine(base, Limits(100, 10**6, 64), 1, batches.append)
    try:
        asyncio.run(engine.logits(adapter, encode([" ".join(FILLER * 3)] * 4, adapter.spec)))
    finally:
        engine.close()
    assert sum(batch.rows for batch in batches) == 4
    assert all(batch.padded_tokens <= 100 and batch.tokens == 36 * batch.rows for batch in batches)


def test_features_of_a_row_are_the_mean_of_its_windows(bases: Bases) -> None:
    job = windowed(bases("bert"))
    spec = spec_for(load_tokenizer(str(bases("bert"))), job.data)
    table = table_of(encode(VARIED[:4], spec))
    collator = Collator(table, spec)
    assert collator.windows is not None and len(set(collator.windows.tolist())) > 1
    ids = [collator.columns["input_ids"][p.chunk][p.flat].tolist() for i in range(4) for p in collator.places(i)]
    single = table_of(pa.table({"input_ids": pa.array(ids, pa.list_(pa.int32()))}))
    model = build(resolve_job(job), LABELS, spec.pad_id)
    rows, windows = (join(features(model, each, 2)) for each in (collator, Collator(single, spec)))
    starts = np.cumsum(collator.windows) - collator.windows
    for own, parts in ((rows.head, windows.head), (rows.mean, windows.mean)):
        assert own is not None and parts is not None
        expected = np.add.reduceat(parts, starts) / collator.windows[:, None]
        assert np.abs(own - expected).max() < 1e-5


def test_frozen_states_of_windows_give_the_same_adapter(bases: Bases, monkeypatch: pytest.MonkeyPatch) -> None:
    job = windowed(bases("bert")).replace({"lora.layers_to_transform": [1]})
    splits = splits_of(job, VARIED)
    found = run(job, splits)
    monkeypatch.setattr(module, "constant_layers", lambda model: 0)
    without = run(job, splits)
    assert largest_difference(trainable_state(found.model), trainable_state(without.model)) < 1e-4
    filled = fill([splits.train], splits.tokenizer, without.model.get_base_model(), 1, 4)[0]  # pyright: ignore
    assert agrees(filled, splits.tokenizer, without.model.get_base_model(), 1)  # pyright: ignore


def test_the_manifest_says_how_long_texts_are_read_and_old_ones_mean_their_end(bases: Bases, tmp_path: Path) -> None:
    job = windowed(bases("bert"), data__max_windows=3)
    run(job, splits_of(job, VARIED), save_to=tmp_path / "new")
    manifest = read_manifest(tmp_path / "new")
    assert (manifest.truncation, manifest.stride, manifest.max_windows) == ("windows", 2, 3)
    card = (tmp_path / "new" / "README.md").read_text()
    assert "up to 3 windows of 16 tokens that share 2 tokens" in card
    assert "logits are the mean of its windows'" in card
    old = make_adapter(bases("bert"), tmp_path / "old", LABELS)
    fields = json.loads((old / "raylora.json").read_text())
    kept = {name: value for name, value in fields.items() if name not in ("truncation", "stride", "max_windows")}
    (old / "raylora.json").write_text(json.dumps(kept))
    spec = raylora.load(old).tokenizer_spec
    assert spec == tokenizer_spec(load_tokenizer(str(old)), 64)
