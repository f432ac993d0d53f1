"""The training loop in one process: maths, resuming, choosing the best epoch."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny import demo_splits, largest_difference, tiny_job

from raylora.config import Job
from raylora.errors import TrainingError
from raylora.model.base.find import resolve
from raylora.model.base.load import read_config
from raylora.model.collator import Collator
from raylora.model.fit.callback import Event
from raylora.model.fit.fit import FitResult, fit
from raylora.model.fit.splits import Splits
from raylora.model.fit.trainer import PlanTrainer
from raylora.model.lora.save import trainable_state
from raylora.model.resolved import resolve_job
from raylora.model.tokens import TokenTable
from raylora.tasks import task_of

Bases = Callable[[str], Path]


def run(job: Job, splits: Splits, **options: Any) -> FitResult:
    return fit(resolve_job(job), splits, **options)


def weights(fitted: FitResult) -> dict[str, torch.Tensor]:
    return trainable_state(fitted.model)


def furthest(a: FitResult, b: FitResult) -> float:
    return largest_difference(weights(a), weights(b))


def one_label(table: TokenTable, label: int) -> TokenTable:
    return replace(table, targets=np.full_like(table.targets, label))


def test_accumulation_reaches_the_same_adapter_as_one_large_batch(bases: Bases) -> None:
    records: list[Event] = []
    job = tiny_job(bases("bert"), train__logging_steps=1, train__per_device_train_batch_size=16)
    splits = demo_splits(job, bases("bert"), 94)  # 76 to train on: the last step has 12 of 16 rows
    whole = run(job, splits, log=records.append)
    half = job.replace({"train.per_device_train_batch_size": 8, "train.gradient_accumulation_steps": 2})
    halves = run(half, splits, log=records.append)
    assert whole.steps == halves.steps == 5
    assert furthest(whole, halves) < 1e-4
    losses = [r for r in records if r["kind"] == "loss"]
    for one, two in zip(losses[:5], losses[5:], strict=True):
        assert two["loss"] == pytest.approx(one["loss"], abs=1e-4)
        assert two["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-3)
    taken = sum(76 / 5 / record["rows_per_s"] for record in losses[:5])  # seconds: each step is a fifth of the epoch
    assert whole.train_s / 20 < taken < 1.05 * whole.train_s, "the rest is Trainer's own start and end"


def test_the_reported_training_loss_is_the_mean_over_rows(bases: Bases) -> None:
    """Learning rate next to nothing: the loss of the one step is that of the untouched model."""
    records: list[Event] = []
    job = tiny_job(bases("bert"), train__learning_rate=1e-12, train__per_device_train_batch_size=8)
    job = job.replace({"train.gradient_accumulation_steps": 4, "train.logging_steps": 1, "train.calibrate": False})
    splits = demo_splits(job, bases("bert"), 36)
    splits = Splits(splits.train, splits.train, None, splits.labels, splits.tokenizer, {})
    fitted = run(job, splits, log=records.append)
    assert len(splits.train) == 28
    first = next(r for r in records if r["kind"] == "loss")
    assert first["loss"] == pytest.approx(fitted.validation.loss, rel=1e-5)


def test_the_same_seed_gives_the_same_adapter_bit_for_bit(bases: Bases) -> None:
    job = tiny_job(bases("bert"), lora__lora_dropout=0.1, train__base_dropout=True)
    splits = demo_splits(job, bases("bert"), 60)
    assert furthest(run(job, splits), run(job, splits)) == 0
    assert furthest(run(job, splits), run(job.replace({"seed": 7}), splits)) > 1e-3


@dataclass(frozen=True)
class Resumed:
    """A fit undisturbed, one gone on with from where it was cut, and what each reported."""

    whole: FitResult
    whole_reports: list[Event]
    resumed: FitResult
    reports: list[Event]


def cut_and_resumed(job: Job, splits: Splits, cut: Path, is_last: Callable[[Event], bool]) -> Resumed:
    """`is_last` of the report whose checkpoint, copied to `cut`, is the last."""

    def stop(metrics: Event, folder: Path | None) -> None:
        assert folder
        if is_last(metrics):
            shutil.copytree(folder, cut)
            raise KeyboardInterrupt

    whole_reports: list[Event] = []
    reports: list[Event] = []
    whole = run(job, splits, report=lambda metrics, folder: whole_reports.append(metrics))
    with pytest.raises(KeyboardInterrupt):
        run(job, splits, report=stop)
    resumed = run(job, splits, resume_from=cut, report=lambda metrics, folder: reports.append(metrics))
    return Resumed(whole, whole_reports, resumed, reports)


def test_a_resumed_fit_equals_an_uninterrupted_one(bases: Bases, tmp_path: Path) -> None:
    job = tiny_job(bases("bert"), train__num_train_epochs=3, lora__lora_dropout=0.1)
    splits = demo_splits(job, bases("bert"), 60)
    found = cut_and_resumed(job, splits, tmp_path / "cut", lambda metrics: metrics["epoch"] == 2)
    assert found.reports == found.whole_reports[2:]
    assert found.resumed.epoch == found.whole.epoch
    assert furthest(found.whole, found.resumed) == 0


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_a_resumed_fit_takes_its_new_hyperparameters(schedule: str, bases: Bases, tmp_path: Path) -> None:
    """As population based training has it: weights and moments of the checkpoint, all else of the new job."""
    job = tiny_job(bases("bert"), train__num_train_epochs=2, train__lr_scheduler_type=schedule)
    splits = demo_splits(job, bases("bert"), 60)  # 48 to train on: 6 steps of 8 rows, twice
    reported: list[Event] = []

    def keep(metrics: Event, folder: Path | None) -> None:
        reported.append(metrics)
        shutil.copytree(folder or tmp_path, tmp_path / f"epoch{metrics['epoch']:g}")

    run(job, splits, report=keep)
    mutated = {"train.learning_rate": 1e-3, "train.weight_decay": 0.3, "train.logging_steps": 1}
    records: list[Event] = []
    again = run(job.replace(mutated), splits, resume_from=tmp_path / "epoch1", log=records.append)
    rates = {record["step"]: record["learning_rate"] for record in records if record["kind"] == "loss"}
    left = {"linear": lambda step: (12 - step) / 12, "cosine": lambda step: (1 + np.cos(np.pi * step / 12)) / 2}
    share = left.get(schedule, lambda step: 1.0)
    assert rates == {step + 1: pytest.approx(1e-3 * share(step)) for step in range(6, 12)}
    undecayed = run(job.replace(mutated | {"train.weight_decay": 0.0}), splits, resume_from=tmp_path / "epoch1")
    assert furthest(again, undecayed) > 0


def test_the_best_epoch_is_kept_across_a_resume(bases: Bases, tmp_path: Path) -> None:
    """Taught one label and scored by the other, a run gets worse by each epoch: the best stays epoch 1, also when
    resumed from epoch 2."""
    job = tiny_job(bases("bert"), train__num_train_epochs=3, train__metric_for_best_model="loss")
    job = job.replace({"train.calibrate": False})  # the scores of the adapter are then the best epoch's
    splits = demo_splits(job, bases("bert"), 60)
    splits = replace(splits, train=one_label(splits.train, 1), validation=one_label(splits.validation, 0))
    reports: list[Event] = []

    def keep(metrics: Event, folder: Path | None) -> None:
        assert folder
        reports.append(metrics)
        shutil.copytree(folder, tmp_path / f"epoch{metrics['epoch']:g}")

    whole = run(job, splits, report=keep)
    best = min(reports, key=lambda r: r["eval_loss"])
    assert whole.epoch == best["epoch"] == 1, "the test needs a run that gets worse"
    assert whole.validation.loss == best["eval_loss"]
    resumed = run(job, splits, resume_from=tmp_path / "epoch2")
    assert resumed.epoch == whole.epoch
    assert furthest(whole, resumed) == 0


def test_of_equal_epochs_the_one_of_lower_loss_is_kept_across_a_resume(bases: Bases, tmp_path: Path) -> None:
    """Every row carries one label: the accuracy is 1 from the first epoch on, and the loss falls."""
    job = tiny_job(bases("bert"), train__num_train_epochs=3, train__calibrate=False)
    splits = demo_splits(job, bases("bert"), 60)
    splits = replace(splits, train=one_label(splits.train, 1), validation=one_label(splits.validation, 1))
    reports: list[Event] = []

    def keep(metrics: Event, folder: Path | None) -> None:
        reports.append(metrics)
        shutil.copytree(folder or tmp_path, tmp_path / f"epoch{metrics['epoch']:g}")

    whole = run(job, splits, report=keep)
    losses = [report["eval_loss"] for report in reports]
    assert [report["eval_accuracy"] for report in reports] == [1, 1, 1] and losses == sorted(losses, reverse=True)
    assert (whole.epoch, whole.validation.loss) == (3, losses[2])
    resumed = run(job, splits, resume_from=tmp_path / "epoch2")
    assert resumed.epoch == 3
    assert furthest(whole, resumed) == 0


def test_early_stopping_ends_a_run_that_no_longer_improves(bases: Bases) -> None:
    job = tiny_job(bases("bert"), train__num_train_epochs=9, train__early_stopping_patience=1)
    job = job.replace({"train.learning_rate": 1e-12})
    reports: list[Event] = []
    fitted = run(job, demo_splits(job, bases("bert"), 40), report=lambda metrics, folder: reports.append(metrics))
    assert len(reports) == 2
    assert fitted.epoch == 1


def test_a_run_killed_after_its_early_stop_takes_no_further_step(bases: Bases, tmp_path: Path) -> None:
    """Its last checkpoint is there, its results are not: it is at its end when it goes on."""
    job = tiny_job(bases("bert"), train__num_train_epochs=9, train__early_stopping_patience=1)
    job = job.replace({"train.learning_rate": 1e-12})
    splits = demo_splits(job, bases("bert"), 40)
    found = cut_and_resumed(job, splits, tmp_path / "cut", lambda metrics: metrics["epoch"] == 2)
    assert len(found.whole_reports) == 2 and found.reports == []
    assert (found.resumed.steps, found.resumed.epoch, found.resumed.validation) == (0, 1, found.whole.validation)
    assert furthest(found.whole, found.resumed) == 0


def test_a_diverged_run_says_so(bases: Bases) -> None:
    job = tiny_job(bases("bert"), train__learning_rate=1e30, train__max_grad_norm=0.0)
    with pytest.raises(TrainingError, match=r"Lower `train.learning_rate` \(now 1e\+30\)"):
        run(job, demo_splits(job, bases("bert"), 40))


@pytest.mark.parametrize("rows", [1, 5, 64])
def test_scores_do_not_depend_on_the_evaluation_batch(bases: Bases, rows: int) -> None:
    job = tiny_job(bases("bert"), train__per_device_eval_batch_size=rows)
    splits = demo_splits(job, bases("bert"), 60)
    scores = run(job, splits).validation
    reference = run(job.replace({"train.per_device_eval_batch_size": 7}), splits).validation
    assert scores.rows == len(splits.validation) == 12
    assert scores.accuracy == reference.accuracy
    assert scores.loss == pytest.approx(reference.loss, abs=1e-6)


def test_scores_are_those_of_the_rows_one_by_one(bases: Bases, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[np.ndarray] = []
    original = PlanTrainer.logits

    def keep(self: PlanTrainer, collator: Collator) -> np.ndarray:
        found = original(self, collator)
        one_by_one = []
        for i in range(len(collator.table)):
            batch = collator(np.array([i]))
            batch.pop("labels")
            with torch.inference_mode():
                one_by_one.append(self.model(**batch).logits[0].numpy())
        np.testing.assert_allclose(found, np.stack(one_by_one), atol=1e-5)
        kept.append(found)
        return found

    monkeypatch.setattr(PlanTrainer, "logits", keep)
    job = tiny_job(bases("bert"), train__calibrate=False)
    splits = demo_splits(job, bases("bert"), 60)
    fitted = run(job, splits)
    assert fitted.validation == task_of(None).score(kept[0], splits.validation.targets)


def test_batches_are_padded_to_their_longest_row_and_bucketed(bases: Bases, monkeypatch: pytest.MonkeyPatch) -> None:
    widths: list[tuple[int, int]] = []
    original = Collator.__call__

    def keep(self: Collator, indices: np.ndarray) -> dict[str, torch.Tensor]:
        batch = original(self, indices)
        widths.append((batch["attention_mask"].shape[1], int(batch["attention_mask"].sum(1).max())))
        padded.append(1 - float(batch["attention_mask"].float().mean()))
        return batch

    padded: list[float] = []
    monkeypatch.setattr(Collator, "__call__", keep)
    job = tiny_job(bases("bert"))
    run(job, demo_splits(job, bases("bert"), 400))
    assert all(width == longest for width, longest in widths)
    assert np.mean(padded) < 0.08
    assert len({width for width, _ in widths}) > 10


def test_the_bases_own_dropout_is_off_by_default_and_on_by_config(bases: Bases) -> None:
    job = tiny_job(bases("bert"))
    base = resolve(job.model)
    off, on = read_config(base, ("a", "b"), dropout=False), read_config(base, ("a", "b"), dropout=True)
    assert (off.hidden_dropout_prob, off.attention_probs_dropout_prob) == (0, 0)
    assert (on.hidden_dropout_prob, on.attention_probs_dropout_prob) == (0.1, 0.1)


def test_a_checkpoint_holds_what_peft_loads_and_the_best_weights(bases: Bases, tmp_path: Path) -> None:
    job = tiny_job(bases("bert"), train__calibrate=False)
    fitted = run(
        job,
        demo_splits(job, bases("bert"), 40),
        report=lambda metrics, folder: shutil.copytree(folder or tmp_path, tmp_path / "checkpoint") and None,
    )
    best = load_file(str(tmp_path / "checkpoint" / "best.safetensors"))
    assert all(torch.equal(best[name], tensor) for name, tensor in weights(fitted).items())
    assert (tmp_path / "checkpoint" / "adapter_model.safetensors").is_file()


@pytest.mark.parametrize("changes", [{}, {"train__base_dropout": True, "train__gradient_accumulation_steps": 2}])
@pytest.mark.parametrize("step", [3, 8])  # within the first epoch, before anything is the best, and within the second
def test_a_fit_resumed_within_an_epoch_equals_an_uninterrupted_one(
    bases: Bases, tmp_path: Path, changes: dict[str, Any], step: int
) -> None:
    job = tiny_job(bases("bert"), train__num_train_epochs=2, lora__lora_dropout=0.1, train__save_steps=step, **changes)
    splits = demo_splits(job, bases("bert"), 100)
    found = cut_and_resumed(job, splits, tmp_path / "cut", lambda metrics: "eval_loss" not in metrics)
    assert next(metrics["step"] for metrics in found.whole_reports if "eval_loss" not in metrics) == step
    assert found.reports == [metrics for metrics in found.whole_reports if metrics["step"] > step]
    assert (found.resumed.epoch, found.resumed.validation) == (found.whole.epoch, found.whole.validation)
    assert furthest(found.whole, found.resumed) == 0
    assert found.resumed.steps == found.whole.steps - step


def test_a_checkpoint_is_written_when_it_is_asked_for(bases: Bases) -> None:
    job = tiny_job(bases("bert"), train__num_train_epochs=1, train__per_device_train_batch_size=2)
    reports: list[Event] = []
    records: list[Event] = []
    answers = iter(["a test wants it"])
    run(
        job,
        demo_splits(job, bases("bert"), 60),
        report=lambda metrics, folder: reports.append(metrics),
        save_now=lambda: next(answers, None),
        log=records.append,
    )
    assert [report["step"] for report in reports] == [8, 24]
    saved = [record for record in records if record["kind"] == "checkpoint"]
    assert [(record["step"], record["reason"]) for record in saved] == [(8, "a test wants it")]


def test_a_checkpoint_is_written_by_the_clock(bases: Bases) -> None:
    job = tiny_job(bases("bert"), train__num_train_epochs=1, train__per_device_train_batch_size=2)
    job = job.replace({"train.save_minutes": 1e-6})
    reports: list[Event] = []
    run(job, demo_splits(job, bases("bert"), 60), report=lambda metrics, folder: reports.append(metrics))
    assert [report["step"] for report in reports] == [8, 16, 24]


def test_a_long_epoch_tells_how_far_it_is_and_no_end_of_one_does(bases: Bases, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raylora.model.fit.callback.PROGRESS_S", 0.0)
    records: list[Event] = []
    job = tiny_job(bases("bert"), train__num_train_epochs=2)
    run(job, demo_splits(job, bases("bert"), 50), log=records.append)
    told = [record for record in records if record["kind"] == "progress"]
    steps = told[0]["steps"]
    assert [record["step"] for record in told] == [step for step in range(1, steps) if step != steps // 2]
    assert all(record["left_s"] > record["epoch_left_s"] > 0 for record in told if record["epoch"] < 1)
    assert all(record["rows_per_s"] > 0 for record in told)
