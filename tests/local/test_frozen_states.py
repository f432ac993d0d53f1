"""The frozen states: the same numbers as without it, and never used where they would not be."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from tiny import LAYOUTS, demo_splits, largest_difference, save_base, tiny_job
from transformers import BertConfig, ElectraConfig, ElectraForSequenceClassification, set_seed

from raylora.config import Job
from raylora.model.collator import Collator
from raylora.model.fit import fit as module
from raylora.model.fit.build import build
from raylora.model.fit.callback import Event
from raylora.model.fit.fit import FitResult, fit
from raylora.model.fit.splits import Splits
from raylora.model.frozen_states import compute, constant_layers, fill, install, layers, uninstall
from raylora.model.lora.attach import attach_adapter, lora_config
from raylora.model.lora.save import trainable_state
from raylora.model.resolved import resolve_job
from raylora.model.tokens import TokenizerSpec, TokenTable, encode, table_of

Bases = Callable[[str], Path]


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of four layers."""
    folder = tmp_path_factory.mktemp("deep") / "bert"
    save_base("bert", folder, num_hidden_layers=4)
    return folder


def top(base: Path, *adapted: int, **changes: Any) -> Job:
    job = tiny_job(base, train__bf16=False, **changes)
    return job.replace({"lora.layers_to_transform": list(adapted)})


def run(job: Job, splits: Splits, **options: Any) -> FitResult:
    return fit(resolve_job(job), splits, **options)


def made(job: Job) -> PeftModel:
    set_seed(job.seed)
    return build(resolve_job(job), ("negative", "positive"), 0)


def states_of(fitted: FitResult) -> dict[str, torch.Tensor]:
    return trainable_state(fitted.model)


@pytest.mark.parametrize("kind", LAYOUTS)
def test_a_fit_from_frozen_states_has_the_numbers_of_one_without(
    bases: Bases, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = top(bases(kind), 1)
    splits = demo_splits(job, bases(kind), 40)
    started_above = run(job, splits)
    base: Any = started_above.model.get_base_model()
    install(base, 1)
    given = dict.fromkeys(("input_ids", "attention_mask"), torch.tensor([[2, 9, 3]]))
    below: list[Any] = []
    found = layers(base)
    assert found
    next(found[0].children()).register_forward_hook(lambda *_: below.append(1))
    base(**given, frozen_states=torch.zeros(1, 3, 32))
    assert not below, "layers below cost nothing"
    base(**given)
    assert below, "and run where no frozen states are given"
    uninstall(base)
    monkeypatch.setattr(module, "constant_layers", lambda model: 0)
    whole = run(job, splits)
    assert largest_difference(states_of(started_above), states_of(whole)) < 1e-5
    assert started_above.validation.loss == pytest.approx(whole.validation.loss, abs=1e-5)
    assert started_above.validation.accuracy == whole.validation.accuracy


def test_in_bf16_frozen_states_are_kept_in_bf16(deep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = top(deep, 3).replace({"train.bf16": True})
    splits = demo_splits(job, deep, 40)
    model = made(job)
    (table,) = fill([splits.train], splits.tokenizer, model.get_base_model(), 3, 16)
    assert table.frozen_states and table.frozen_states[0].dtype == np.uint16
    assert Collator(table, splits.tokenizer)(np.arange(2))["frozen_states"].dtype == torch.bfloat16
    started_above = run(job, splits)
    monkeypatch.setattr(module, "constant_layers", lambda model: 0)
    assert started_above.validation.loss == pytest.approx(run(job, splits).validation.loss, rel=0.02)


def test_beyond_the_byte_budget_frozen_states_are_on_disk_with_the_same_bits(
    deep: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds: list[type] = []
    original = module.fill

    def watch(*arguments: Any) -> list[TokenTable]:
        tables = original(*arguments)
        kinds.extend(type(table.frozen_states[0]) for table in tables if table.frozen_states)
        return tables

    monkeypatch.setattr(module, "fill", watch)
    job = top(deep, 2, 3)
    splits = demo_splits(job, deep, 40)
    in_memory = run(job, splits)
    tokens = int(splits.train.lengths.sum() + splits.validation.lengths.sum())
    assert run(job.replace({"train.frozen_states_cache_bytes": tokens * 32 * 4}), splits).epoch == 1
    on_disk = run(job.replace({"train.frozen_states_cache_bytes": tokens * 32 * 4 - 1}), splits)
    assert kinds == [np.ndarray] * 4 + [np.memmap] * 2
    assert largest_difference(states_of(in_memory), states_of(on_disk)) == 0


def test_splits_that_share_chunks_share_frozen_states_that_hold_their_rows_alone(deep: Path) -> None:
    job = top(deep, 3)
    splits = demo_splits(job, deep, 40)
    few = TokenTable(splits.train.chunks, splits.train.rows[:5], splits.train.targets[:5], splits.train.lengths[:5])
    train, validation = fill([few, splits.validation], splits.tokenizer, made(job).get_base_model(), 3, 16)
    assert train.frozen_states is validation.frozen_states
    assert train.frozen_states is not None
    known = int(few.lengths.sum() + splits.validation.lengths.sum())
    assert int((np.abs(train.frozen_states[0]).sum(axis=1) > 0).sum()) == known < len(train.frozen_states[0])


@pytest.mark.parametrize("pad_left", [False, True])
def test_batches_hold_each_rows_states_at_its_tokens_and_zero_at_padding(deep: Path, pad_left: bool) -> None:
    """Two chunks, one of them a slice; state j of token j of a chunk."""
    spec = demo_splits(top(deep, 3), deep, 40).tokenizer
    spec = TokenizerSpec(spec.state, spec.pad_id, pad_left, spec.type_ids)
    texts = ["bad", "very bad film", "good good", "a", "the best of films"]
    whole = encode(texts, spec)
    lengths = table_of(whole).lengths
    given = [np.arange(n, dtype=np.float32)[:, None] for n in (lengths[:2].sum(), lengths[2:].sum())]
    table = TokenTable([whole[:2], whole[2:]], np.array([4, 1, 2]), np.zeros(3), lengths[[4, 1, 2]], given)
    batch = Collator(table, spec)(np.array([0, 1]))
    states, mask = batch["frozen_states"][..., 0], batch["attention_mask"].bool()
    assert states[0][mask[0]].tolist() == list(range(lengths[2] + lengths[3], lengths[2:].sum()))
    assert states[1][mask[1]].tolist() == list(range(lengths[0], lengths[:2].sum()))
    assert not states[~mask].any()
    assert bool(mask[1, 0]) != pad_left or lengths[1] == lengths[4]


def test_what_is_constant_is_read_from_the_model(deep: Path) -> None:
    def constant(*adapted: int, **changes: Any) -> int:
        return constant_layers(made(top(deep, *adapted, **changes)))

    assert [constant(3), constant(1, 3), constant(0, 3)] == [3, 1, 0]
    assert constant(3, lora__lora_dropout=0.5) == 3, "random in the adapted layer alone"
    assert constant(3, train__base_dropout=True) == 0
    assert constant(3, lora__bias="all") == 0
    assert constant(3, lora__bias="lora_only") == 3
    assert constant(3, lora__modules_to_save=["embeddings"]) == 0
    assert constant(3, lora__modules_to_save=["layer.1.output.dense"]) == 1
    assert constant(3, lora__modules_to_save=["pooler"]) == 3
    named = tiny_job(deep, lora__target_modules=["layer.2.attention.self.value", "layer.3.attention.self.value"])
    assert constant_layers(made(named)) == 2


def test_a_dropout_in_a_function_or_of_an_unknown_base_counts(deep: Path) -> None:
    model = made(top(deep, 3))
    config: BertConfig = model.get_base_model().config  # pyright: ignore[reportAssignmentType]
    config.attention_probs_dropout_prob = 0.1
    assert constant_layers(model) == 0
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    dropouts = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    unknown = ElectraForSequenceClassification(ElectraConfig(vocab_size=50, embedding_size=16, **sizes, **dropouts))
    unknown.accepts_loss_kwargs = False
    lora = top(deep, 1).lora
    assert layers(unknown) is None
    assert constant_layers(attach_adapter(unknown, lora_config(lora, unknown))) == 0


def test_a_fit_resumes_from_frozen_states_as_without_interruption(deep: Path, tmp_path: Path) -> None:
    import shutil

    job = top(deep, 3, train__num_train_epochs=2, lora__lora_dropout=0.1)
    splits = demo_splits(job, deep, 40)

    def keep(metrics: Event, folder: Path | None) -> None:
        assert folder
        shutil.copytree(folder, tmp_path / f"epoch{metrics['epoch']:g}")

    whole = run(job, splits, report=keep)
    resumed = run(job, splits, resume_from=tmp_path / "epoch1")
    assert largest_difference(states_of(whole), states_of(resumed)) == 0


def test_frozen_states_of_another_depth_are_a_bug_that_is_seen(deep: Path) -> None:
    job = top(deep, 3)
    splits = demo_splits(job, deep, 40)
    base = made(job).get_base_model()
    tables = [splits.train, splits.validation]

    def brought(depth: int) -> Splits:
        train, validation = fill(tables, splits.tokenizer, base, depth, 16)
        return Splits(train, validation, None, splits.labels, splits.tokenizer, {})

    assert run(job, brought(3)).steps == 4
    with pytest.raises(AssertionError, match="another depth"):
        run(job, brought(2))
    assert run(top(deep, 0), brought(2)).steps == 4, "where nothing is constant it is left out"


def test_states_do_not_depend_on_the_rows_computed_beside_them(deep: Path) -> None:
    splits = demo_splits(top(deep, 3), deep, 40)
    base = made(top(deep, 3)).get_base_model()
    collator = Collator(splits.train, splits.tokenizer)
    (one,), (many,) = compute(base, collator, 2, 1), compute(base, collator, 2, 64)
    np.testing.assert_allclose(one, many, atol=2e-5)
    install(base, 2)
    (again,) = compute(base, collator, 2, 64)
    np.testing.assert_array_equal(again, many)
