"""Several labels a row, and numbers: they learn, resume, pack, finish, and are saved as one label a row is."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import AutoPeftModelForSequenceClassification
from safetensors.torch import load_file
from test_bank import agree, alone, packed
from tiny import largest_difference, save_base, task_splits, task_texts, tiny_job
from transformers import AutoModelForSequenceClassification

import raylora
from raylora.config import Job
from raylora.model.collator import Collator
from raylora.model.fit.callback import Event
from raylora.model.fit.finish import finish
from raylora.model.fit.fit import FitResult, fit
from raylora.model.fit.splits import ALONE, Splits
from raylora.model.lora.save import trainable_state
from raylora.model.resolved import resolve_job
from raylora.model.tokens import encode, table_of
from raylora.tasks import ProblemType

Bases = Callable[[str], Path]

SINGLE: ProblemType = "single_label_classification"
MULTI: ProblemType = "multi_label_classification"
NUMBERS: ProblemType = "regression"
KINDS = pytest.mark.parametrize(("kind", "numbers"), [(MULTI, 1), (NUMBERS, 1), (NUMBERS, 2)])


def job_of(base: Path, kind: ProblemType, **changes: Any) -> Job:
    return tiny_job(base, data__problem_type=kind, **{"train__num_train_epochs": 4} | changes)


def run(job: Job, splits: Splits, **options: Any) -> FitResult:
    return fit(resolve_job(job), splits, **options)


@KINDS
def test_a_fit_learns_it_and_ends_above_its_floor_of_chance(kind: ProblemType, numbers: int, bases: Bases) -> None:
    job = job_of(bases("bert"), kind, train__floor=True)
    splits = task_splits(job, bases("bert"), 200, numbers)
    log: list[Event] = []
    fitted = run(job, splits, log=log.append)
    assert fitted.test is not None
    least = {MULTI: ("f1_micro", 0.75), NUMBERS: ("pearson", 0.75)}[kind]
    assert fitted.test[least[0]] > least[1] and fitted.validation[least[0]] > least[1]
    records = {record["kind"]: record for record in log}
    assert records["head"]["init"] == "probe"
    assert fitted.floor["metric"] == least[0]
    assert {"tfidf", "probe", "difference"} <= fitted.floor["test"].keys()
    evaluations = [record for record in log if record["kind"] == "evaluation"]
    assert all(f"eval_{metric}" in evaluations[0] for metric in splits.task.metrics)
    assert ("calibration" in records) == (kind == MULTI)


@KINDS
def test_a_resumed_fit_equals_an_uninterrupted_one(
    kind: ProblemType, numbers: int, bases: Bases, tmp_path: Path
) -> None:
    job = job_of(bases("bert"), kind, train__num_train_epochs=2, lora__lora_dropout=0.1, train__floor=True)
    splits = task_splits(job, bases("bert"), 80, numbers)

    def keep(metrics: Event, folder: Path | None) -> None:
        if metrics["epoch"] == 1:
            shutil.copytree(folder or tmp_path, tmp_path / "first")

    whole = run(job, splits, report=keep)
    resumed = run(job, splits, resume_from=tmp_path / "first")
    assert largest_difference(trainable_state(whole.model), trainable_state(resumed.model)) == 0
    assert (whole.validation, whole.test, whole.learned) == (resumed.validation, resumed.test, resumed.learned)
    assert whole.floor["validation"] == resumed.floor["validation"]


@KINDS
def test_packed_trials_end_where_each_would_alone(
    kind: ProblemType, numbers: int, bases: Bases, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"train__num_train_epochs": 2, "train__learning_rate": 2e-3}
    jobs = {str(r): job_of(bases("bert"), kind, lora__r=r, **options) for r in (2, 8)}
    splits = replace(task_splits(jobs["2"], bases("bert"), 100, numbers), test=None)
    runs = packed(jobs, splits, tmp_path)
    for name, job in jobs.items():
        agree(runs[name], alone(job, splits))


@pytest.mark.parametrize(
    ("kind", "loss"),
    [
        (SINGLE, {"train__class_weights": "balanced", "train__label_smoothing_factor": 0.1}),
        (MULTI, {"train__class_weights": {"good": 3.0}, "train__loss": "focal"}),
        (NUMBERS, {"train__loss": "huber"}),
    ],
)
def test_a_pack_takes_the_loss_that_a_fit_takes(
    kind: ProblemType, loss: dict[str, Any], bases: Bases, tmp_path: Path
) -> None:
    job = job_of(bases("bert"), kind, train__num_train_epochs=1, train__learning_rate=2e-3, **loss)
    splits = replace(task_splits(job, bases("bert"), 120), test=None)
    ours = packed({"0": job}, splits, tmp_path)["0"]
    agree(ours, alone(job, splits))
    plain = job.replace({"train.class_weights": None, "train.label_smoothing_factor": 0.0, "train.loss": None})
    assert largest_difference(ours.last, alone(plain, splits).last) > 1e-4


@pytest.mark.parametrize("refit", [False, True])
@pytest.mark.parametrize("kind", [MULTI, NUMBERS])
def test_a_finished_trial_is_the_adapter_that_a_fit_saves(
    kind: ProblemType, refit: bool, bases: Bases, tmp_path: Path
) -> None:
    job = job_of(bases("bert"), kind, train__num_train_epochs=2, tune__refit=refit)
    splits = task_splits(job, bases("bert"), 80)
    best: list[float] = []

    def keep(metrics: Event, folder: Path | None) -> None:
        shutil.copytree(folder or tmp_path, tmp_path / "trial", dirs_exist_ok=True)

    fitted = run(job, splits, report=keep, save_to=tmp_path / "fit")
    best.append(fitted.epoch)
    done = finish(resolve_job(job), splits, None, tmp_path / "trial", round(best[0]), ALONE, tmp_path / "finished")
    first, second = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("fit", "finished"))
    assert done.validation == fitted.validation
    if refit:  # it has learned from more rows, and still speaks in their unit
        texts = task_texts(splits, splits.test or splits.train)
        outputs = raylora.load(tmp_path / "finished").logits(texts)
        assert done.test is not None
        assert done.test.loss == pytest.approx(splits.task.score(outputs, splits.test.targets).loss, rel=1e-3)  # type: ignore[union-attr]
        assert largest_difference(first, second) > 0
    else:
        assert largest_difference(first, second) < 1e-6
        assert done.test == fitted.test
        assert done.learned == fitted.learned


@pytest.mark.parametrize("base", ["bert", "llama", "gpt2"])
@pytest.mark.parametrize("kind", [SINGLE, MULTI, NUMBERS])
def test_plain_peft_gives_the_numbers_in_their_own_unit_and_the_calibrated_scores(
    kind: ProblemType, base: str, bases: Bases, tmp_path: Path
) -> None:
    """Heads of llama and gpt2 have no bias: what they are shifted by, they learn."""
    job = job_of(bases(base), kind, train__num_train_epochs=2)
    splits = task_splits(job, bases(base), 100)
    fitted = run(job, splits, save_to=tmp_path / "adapter")
    assert splits.test is not None
    predictor = raylora.load(tmp_path / "adapter")
    ours = predictor.logits(task_texts(splits, splits.test))
    plain = AutoPeftModelForSequenceClassification.from_pretrained(
        str(tmp_path / "adapter"), num_labels=len(splits.labels), pad_token_id=splits.tokenizer.pad_id
    ).eval()
    table = table_of(encode(task_texts(splits, splits.test), predictor.tokenizer_spec))
    batch = Collator(table, predictor.tokenizer_spec)(np.arange(len(table)))
    del batch["labels"]
    with torch.inference_mode():
        theirs = plain(**batch).logits.numpy()
    np.testing.assert_allclose(ours, theirs, atol=1e-4, rtol=1e-4)
    manifest = json.loads((tmp_path / "adapter" / "raylora.json").read_text())
    assert manifest["problem_type"] == kind
    thresholds = manifest["thresholds"] and np.array([manifest["thresholds"][label] for label in splits.labels])
    again = splits.task.score(ours, splits.test.targets, thresholds)
    told = {key: value for key, value in manifest["metrics"]["test"].items() if key in again}
    assert told == pytest.approx(dict(again), rel=1e-3, abs=1e-4)
    assert manifest["metrics"]["validation"]["loss"] == fitted.validation.loss
    if kind == NUMBERS:
        assert abs(theirs.mean() - splits.train.targets.mean()) < 10, "numbers of mean 20"


@pytest.mark.parametrize("kind", [SINGLE, MULTI])
def test_calibration_is_told_and_leaves_the_labels_as_they_are(kind: ProblemType, bases: Bases, tmp_path: Path) -> None:
    job = job_of(bases("llama"), kind, train__num_train_epochs=2)
    splits = task_splits(job, bases("llama"), 100)
    log: list[Event] = []
    run(job, splits, log=log.append, save_to=tmp_path / "on")
    (told,) = (record for record in log if record["kind"] == "calibration")
    log.clear()
    left = run(job.replace({"train.calibrate": False}), splits, log=log.append, save_to=tmp_path / "off")
    assert not any(record["kind"] == "calibration" for record in log)
    assert left.learned["calibration"] is None
    assert left.validation.rows == len(splits.validation)
    manifest = json.loads((tmp_path / "on" / "raylora.json").read_text())
    assert manifest["calibration"] == {key: told[key] for key in ("temperature", "ece_before", "ece_after")}
    texts = task_texts(splits, splits.validation)
    on, off = (raylora.load(tmp_path / name).logits(texts) for name in ("on", "off"))
    np.testing.assert_allclose(on * told["temperature"], off, atol=1e-4, rtol=1e-4)
    assert np.array_equal(splits.task.decisions(on), splits.task.decisions(off))
    for outputs, key in ((off, "ece_before"), (on, "ece_after")):
        assert splits.task.calibration_error(outputs, splits.validation.targets) == pytest.approx(told[key], abs=1e-3)


def test_a_head_that_the_base_brings_learns_numbers_as_they_are(bases: Bases, tmp_path: Path) -> None:
    """There is no new layer for units to go into."""
    own = tmp_path / "own"
    shutil.copytree(bases("bert"), own)
    AutoModelForSequenceClassification.from_pretrained(str(own), num_labels=1).save_pretrained(str(own))
    job = job_of(own, NUMBERS, train__num_train_epochs=2)
    splits = task_splits(job, own, 100)
    log: list[Event] = []
    fitted = run(job, splits, log=log.append, save_to=tmp_path / "adapter")
    assert [record["init"] for record in log if record["kind"] == "head"] == ["base"]
    outputs = raylora.load(tmp_path / "adapter").logits(task_texts(splits, splits.validation))
    assert splits.task.score(outputs, splits.validation.targets).mse == pytest.approx(fitted.validation.mse, rel=1e-3)


def test_a_label_of_one_row_in_a_hundred_is_found_with_balanced_weights(tmp_path: Path) -> None:
    """Its word stands in one of twenty other rows, too: without weights the common label is always likelier."""
    save_base("llama", tmp_path / "base")
    job = job_of(tmp_path / "base", SINGLE, train__metric_for_best_model="f1_macro", train__num_train_epochs=8)
    job = job.replace({"train.per_device_train_batch_size": 64})
    splits = task_splits(job, tmp_path / "base", 800)
    assert splits.train.targets.mean() == pytest.approx(0.01, abs=0.002)
    plain, balanced = (run(job.replace({"train.class_weights": each}), splits) for each in (None, "balanced"))
    assert plain.test is not None and balanced.test is not None
    assert (plain.validation.recall, plain.test.recall) == (0, 0)
    assert min(balanced.validation.recall, balanced.test.recall) >= 0.5
    assert balanced.test.accuracy > 0.8
