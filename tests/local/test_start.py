"""Where a head starts, and the floor under a run."""

import json
import math
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import AutoPeftModelForSequenceClassification
from peft.tuners.lora import LoraLayer
from tiny import LAYOUTS, demo_splits, largest_difference, tiny_job
from transformers import AutoModelForSequenceClassification, set_seed

import raylora
from raylora.config import Job
from raylora.errors import ModelError
from raylora.model.bank import Bank
from raylora.model.collator import Collator
from raylora.model.fit.build import build
from raylora.model.fit.callback import Event
from raylora.model.fit.fit import fit, use_frozen_states
from raylora.model.fit.head import Features, draws_below_last, features, join, last_linear
from raylora.model.fit.splits import Splits, Worker
from raylora.model.fit.start import HEAD_SCALES, NO_LAYER, begin_from, local_start, make_start, start_key, starts_of
from raylora.model.lora.save import trainable_state
from raylora.model.resolved import resolve_job
from raylora.model.tokens import encode, table_of
from raylora.probe import fit_probe

Bases = Callable[[str], Path]
HEAD = "classifier.modules_to_save.default.weight"


@pytest.fixture(autouse=True)
def any_probe_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random bases know next to nothing of the labels."""
    monkeypatch.setattr("raylora.model.fit.start.LEAST_SKILL", -math.inf)


def new_model(job: Job, splits: Splits):
    set_seed(job.seed)
    return build(resolve_job(job), splits.labels, splits.tokenizer.pad_id)


def features_of(model, splits: Splits, split: str) -> Features:
    table = getattr(splits, split)
    return join(features(model, Collator(table, splits.tokenizer), 64))


def head_of(state: dict[str, torch.Tensor]) -> torch.Tensor:
    return next(weights for name, weights in state.items() if name.endswith(HEAD))


@pytest.mark.parametrize("kind", LAYOUTS)
def test_the_head_gives_the_probes_predictions_before_the_first_step(kind: str, bases: Bases) -> None:
    job = tiny_job(bases(kind))
    splits = demo_splits(job, bases(kind), 120)
    model = new_model(job, splits)
    seen, unseen = (features_of(model, splits, split).head for split in ("train", "validation"))
    layer = getattr(*last_linear(model))
    probe = fit_probe(seen, splits.train.targets, 2, bias=layer.bias is not None)
    begin_from(model, job, local_start(job, splits, model))

    batch = Collator(splits.validation, splits.tokenizer)(np.arange(len(splits.validation)))
    del batch["labels"]
    with torch.inference_mode():
        logits = model(**batch).logits.numpy()
    expected = HEAD_SCALES["single_label_classification"] * probe.logits(unseen)
    assert np.abs(logits - expected).max() < 1e-4
    assert (logits.argmax(axis=1) == expected.argmax(axis=1)).all()


def test_features_are_what_the_last_layer_is_fed_and_the_mean_over_real_tokens(bases: Bases) -> None:
    job = tiny_job(bases("bert"))
    splits = demo_splits(job, bases("bert"), 30)
    model = new_model(job, splits)
    found = features_of(model, splits, "train")
    collator = Collator(splits.train, splits.tokenizer)
    for row in range(3):  # alone, so that nothing is padded
        batch = {name: t for name, t in collator(np.array([row])).items() if name != "labels"}
        with torch.inference_mode():
            output = model.get_base_model().bert(**batch)
        assert np.allclose(found.head[row], output.pooler_output[0], atol=1e-5)
        assert np.allclose(found.mean[row], output.last_hidden_state[0].mean(0), atol=1e-5)
    assert isinstance(getattr(*last_linear(model)), torch.nn.Linear), "the layer is back in its place"


def test_features_start_from_the_frozen_prefix_where_there_is_one(bases: Bases, tmp_path: Path) -> None:
    job = tiny_job(bases("bert"), lora__target_modules=["query", "value"], lora__layers_to_transform=[1])
    splits = demo_splits(job, bases("bert"), 40)
    model = new_model(job, splits)
    above = use_frozen_states(job, model, splits, Worker(), tmp_path)
    assert above.train.frozen_states is not None
    found, whole = features_of(model, above, "train"), features_of(new_model(job, splits), splits, "train")
    assert np.allclose(found.head, whole.head, atol=1e-5)
    assert np.allclose(found.mean, whole.mean, atol=1e-5)


def test_every_trial_of_a_bank_starts_where_it_would_alone(bases: Bases) -> None:
    jobs = {str(rank): tiny_job(bases("bert"), lora__r=rank) for rank in (2, 8)}
    jobs |= {"random": jobs["2"].replace({"train.head_init": "random"})}
    splits = demo_splits(jobs["2"], bases("bert"), 60)
    bank = Bank(resolve_job(jobs["random"]), splits)
    for name, job in jobs.items():
        bank.admit(name, job)
        model = new_model(job, splits)
        begin_from(model, job, local_start(job, splits, model))
        assert largest_difference(bank.trials[-1].state(), trainable_state(model)) < 1e-6
    heads = [head_of(trial.state()) for trial in bank.trials]
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


@pytest.mark.parametrize("kind", ["roberta", "distilbert"])
def test_a_bank_with_its_base_in_bf16_starts_as_a_fit_does(kind: str, bases: Bases) -> None:
    """Layers of the head below its last one are fp32 over a base in bf16."""
    job = tiny_job(bases(kind), train__bf16=True)
    splits = demo_splits(job, bases(kind), 40)
    bank = Bank(resolve_job(job), splits)
    bank.admit("a", job)
    model = new_model(job, splits)
    begin_from(model, job, local_start(job, splits, model))
    assert largest_difference(bank.trials[0].state(), trainable_state(model)) < 1e-6


def test_a_start_that_was_made_beforehand_is_taken_as_it_is(bases: Bases) -> None:
    job = tiny_job(bases("bert"))
    splits = demo_splits(job, bases("bert"), 40)
    start = local_start(job, splits, new_model(job, splits))
    given = replace(splits, start=replace(start, head=replace(start.head, weight=2 * start.head.weight)))
    bank = Bank(resolve_job(job), given)
    bank.admit("a", job)
    assert np.array_equal(head_of(bank.trials[0].state()).numpy(), 2 * start.head.weight)


@pytest.mark.parametrize(
    ("kind", "depends"), [("bert", False), ("llama", False), ("distilbert", True), ("roberta", True)]
)
def test_a_start_depends_on_the_seed_where_a_layer_below_the_last_is_drawn(
    bases: Bases, kind: str, depends: bool
) -> None:
    first, other = (tiny_job(bases(kind)).replace({"seed": seed, "data.seed": 42}) for seed in (42, 43))
    splits = demo_splits(first, bases(kind), 60)
    models = [new_model(job, splits) for job in (first, other)]
    starts = [local_start(job, splits, model).head for job, model in zip((first, other), models, strict=True)]
    assert [draws_below_last(model) for model in models] == [depends] * 2
    assert np.allclose(starts[0].weight, starts[1].weight, atol=1e-6) == (not depends)


def test_a_head_starts_at_random_where_the_probe_knows_too_little(
    bases: Bases, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And there are rows enough for a random one to learn from."""
    monkeypatch.setattr("raylora.model.fit.start.LEAST_SKILL", 0.9)
    job = tiny_job(bases("bert"), train__floor=True)
    splits = demo_splits(job, bases("bert"), 60)
    assert local_start(job, splits, new_model(job, splits)).init == "probe"
    monkeypatch.setattr("raylora.model.fit.start.MANY_ROWS", 48)
    log: list[Event] = []
    assert fit(resolve_job(job), splits, log=log.append).floor is not None
    (head,) = (record for record in log if record["kind"] == "head")
    assert head["init"] == "random"
    assert re.fullmatch(
        r"a linear probe of what it sees labels \d+% of held-out rows rightly, their commonest label alone \d+%",
        head["reason"],
    )


def test_other_workers_than_the_first_only_help_with_the_forwards(bases: Bases) -> None:
    """Their weights are taken from the first one's."""
    job = tiny_job(bases("bert"), train__floor=True)
    splits = demo_splits(job, bases("bert"), 40)
    model = new_model(job, splits)
    asked: list[int] = []

    def count(split: Collator) -> Features:
        asked.append(len(split.table))
        return join(features(model, split, 64))

    first = make_start(job, splits, model, count)
    forwards = list(asked)
    second = make_start(job, splits, model, count, is_main=False)
    assert first.head is not None and first.floor is not None
    assert second.head is None
    for name, split in first.floor.splits.items():
        assert split.predicted.keys() == {"tfidf", "probe"} and not second.floor.splits[name].predicted
        assert np.array_equal(split.rows, second.floor.splits[name].rows), "all score the adapter on the same rows"
    assert asked == forwards * 2, "all workers take part in every forward"


def test_a_fit_says_its_floor_before_training_and_how_it_stands_to_it(bases: Bases) -> None:
    job = tiny_job(bases("bert"), train__floor=True)
    splits = demo_splits(job, bases("bert"), 120)
    log: list[Event] = []
    fitted = fit(resolve_job(job), replace(splits, test=splits.validation), log=log.append)
    kinds = [record["kind"] for record in log]
    assert kinds.index("floor") < kinds.index("evaluation")
    for split in ("validation", "test"):
        found = fitted.floor[split]
        gap = found["difference"]
        assert gap["against"] == found["highest"]
        assert gap["value"] == pytest.approx(fitted.validation.accuracy - found[gap["against"]]["accuracy"])
        assert gap["low"] <= gap["value"] <= gap["high"]
        assert found["rows"] == len(splits.validation)
    assert fitted.floor["train_rows"] == len(splits.train)


def test_a_base_of_foreign_code_starts_at_random_and_says_so_above_its_floor(
    bases: Bases, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = tiny_job(bases("bert"), train__floor=True)
    monkeypatch.setattr("transformers.BertForSequenceClassification.__module__", "somebody.elses")
    log: list[Event] = []
    fitted = fit(resolve_job(job), demo_splits(job, bases("bert"), 40), log=log.append)
    assert fitted.floor is not None, "it needs no head"
    (head,) = (record for record in log if record["kind"] == "head")
    assert (head["init"], head["reason"]) == ("random", NO_LAYER)


@pytest.mark.parametrize("kind", ["bert", "distilbert", "roberta", "deberta-v2", "modernbert"])
def test_a_head_that_the_base_brings_is_trained_on_and_stays_out_of_all_linear(
    kind: str, bases: Bases, tmp_path: Path
) -> None:
    own = tmp_path / "own"
    shutil.copytree(bases(kind), own)
    plain = AutoModelForSequenceClassification.from_pretrained(str(bases(kind)), num_labels=2)
    plain.save_pretrained(str(own))
    job = tiny_job(own, lora__target_modules="all-linear", train__floor=True)
    splits = demo_splits(job, own, 40)
    model = new_model(job, splits)
    begin_from(model, job, local_start(job, splits, model))
    before = dict(plain.named_parameters())
    for name, parameter in model.get_base_model().named_parameters():
        if name.endswith((".weight", ".bias")) and ".modules_to_save.default" in name:
            assert torch.equal(parameter, before[name.replace(".modules_to_save.default", "")]), name
    inside = f"{plain.base_model_prefix}."
    assert all(n.startswith(inside) for n, m in model.get_base_model().named_modules() if isinstance(m, LoraLayer))
    log: list[Event] = []
    assert fit(resolve_job(job), splits, log=log.append).floor is not None
    assert [record["init"] for record in log if record["kind"] == "head"] == ["base"]


@pytest.mark.parametrize("kind", ["bert", "roberta", "llama"])
def test_a_head_of_the_bases_own_for_other_labels_gives_way_to_a_new_one(
    kind: str, bases: Bases, tmp_path: Path
) -> None:
    own = tmp_path / "own"
    shutil.copytree(bases(kind), own)
    AutoModelForSequenceClassification.from_pretrained(str(own), num_labels=3).save_pretrained(str(own))
    job = tiny_job(own, train__head_init="random")
    splits = demo_splits(job, own, 40)
    starts = [dict(new_model(j, splits).named_parameters()) for j in (job, tiny_job(bases(kind), seed=job.seed))]
    assert starts[0].keys() == starts[1].keys()
    assert all(torch.equal(starts[0][name], starts[1][name]) for name in starts[0]), "as on the base without a head"
    log: list[Event] = []
    fit(resolve_job(job.replace({"train.head_init": "probe"})), splits, log=log.append, save_to=tmp_path / "adapter")
    assert [record["init"] for record in log if record["kind"] == "head"] == ["probe"]
    assert "ignore_mismatched_sizes=True" in (tmp_path / "adapter" / "README.md").read_text()
    plain = AutoPeftModelForSequenceClassification.from_pretrained(
        str(tmp_path / "adapter"), num_labels=2, ignore_mismatched_sizes=True
    ).eval()
    predictor = raylora.load(tmp_path / "adapter")
    batch = Collator(table_of(encode(["Works well."], predictor.tokenizer_spec)), predictor.tokenizer_spec)(
        np.arange(1)
    )
    del batch["labels"]
    with torch.inference_mode():
        np.testing.assert_allclose(plain(**batch).logits.numpy(), predictor.logits(["Works well."]), atol=1e-5)


def test_weights_of_another_shape_than_the_config_says_are_refused_in_words(bases: Bases, tmp_path: Path) -> None:
    own = tmp_path / "own"
    shutil.copytree(bases("bert"), own)
    config = json.loads((own / "config.json").read_text())
    (own / "config.json").write_text(json.dumps(config | {"intermediate_size": 48}))
    job = tiny_job(own)
    with pytest.raises(ModelError, match=r"has another shape than config\.json says"):
        fit(resolve_job(job), demo_splits(job, own, 40))


def test_no_floor_is_made_where_none_is_wanted(bases: Bases) -> None:
    job = tiny_job(bases("bert"), train__head_init="random")
    log: list[Event] = []
    fitted = fit(resolve_job(job), demo_splits(job, bases("bert"), 40), log=log.append)
    assert fitted.floor is None
    assert not {"head", "floor"} & {record["kind"] for record in log}


def test_an_interrupted_fit_keeps_its_floor(bases: Bases, tmp_path: Path) -> None:
    job = tiny_job(bases("bert"), train__floor=True, train__num_train_epochs=2)
    splits = demo_splits(job, bases("bert"), 60)

    def keep(metrics: Event, folder: Path | None) -> None:
        if metrics["epoch"] == 1:
            shutil.copytree(folder, tmp_path / "first")

    whole = fit(resolve_job(job), splits, report=keep)
    log: list[Event] = []
    again = fit(resolve_job(job), splits, resume_from=tmp_path / "first", log=log.append)
    assert again.floor == whole.floor
    assert "head" not in [record["kind"] for record in log], "the head is among the checkpoint's weights"
    assert largest_difference(trainable_state(again.model), trainable_state(whole.model)) == 0


@pytest.mark.parametrize("kind", ["bert", "distilbert"])
def test_each_trial_of_a_sweep_starts_as_it_would_alone(kind: str, bases: Bases) -> None:
    job = tiny_job(bases(kind), train__floor=True)
    splits = demo_splits(job, bases(kind), 60)
    changes = [{}, {"seed": 7}, *({"train.class_weights": each} for each in ("balanced", {"positive": 30.0}))]
    trials = [job.replace(each) for each in changes] + [
        job.replace({"seed": 7, "train.class_weights": {"positive": 30.0}})
    ]
    starts = starts_of(resolve_job(job), splits, trials, None, "cpu")
    assert len(starts) == len(trials)
    assert next(start_key(trial) for trial in trials if starts[start_key(trial)].floor) == start_key(job)
    for trial in trials:
        alone, shared = local_start(trial, splits, new_model(trial, splits)).head, starts[start_key(trial)].head
        assert alone is not None and shared is not None
        np.testing.assert_allclose(shared.weight, alone.weight, atol=1e-5)
        np.testing.assert_allclose(shared.bias, alone.bias, atol=1e-5)
    plain, *_, weighed, _ = (starts[start_key(trial)].head for trial in trials)
    assert plain is not None and weighed is not None
    assert np.abs(weighed.bias - plain.bias).max() > 0.1
