"""Outputs for rows by adapters that did not see them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny import demo_splits, task_splits, tiny_job

from raylora.config import Job
from raylora.errors import DataError
from raylora.model.bank import Bank, Fold
from raylora.model.collator import Collator
from raylora.model.fit.splits import Splits
from raylora.model.fit.start import Start
from raylora.model.folds import out_of_fold
from raylora.model.resolved import resolve_job

Bases = Callable[[str], Path]
ROWS = 100


@pytest.fixture
def job(bases: Bases) -> Job:
    return tiny_job(bases("bert"), train__num_train_epochs=2)


def turned(splits: Splits, rows: np.ndarray) -> Splits:
    """With the other label at some rows of train."""
    targets = splits.train.targets.copy()
    targets[rows] = 1 - targets[rows]
    return replace(splits, train=replace(splits.train, targets=targets))


def test_a_fold_learns_nothing_of_the_rows_it_holds_out(job: Job, bases: Bases) -> None:
    """Whatever these rows' labels are, its outputs are the same to the bit; those of a trial that saw them are not."""
    splits = demo_splits(job, bases("bert"), rows=ROWS)
    held_out = np.arange(len(splits.train)) % 4 == 1

    def outputs(splits: Splits) -> dict[str, np.ndarray]:
        bank = Bank(resolve_job(job), replace(splits, start=Start()))
        bank.admit("fold", job, fold=Fold(held_out, Start()))
        bank.admit("all", job)
        bank.run_epoch()
        bank.run_epoch()
        return {name: bank.outputs(name, Collator(splits.train, splits.tokenizer)) for name in bank.names}

    as_given, other = outputs(splits), outputs(turned(splits, np.flatnonzero(held_out)))
    assert np.array_equal(as_given["fold"], other["fold"])
    assert not np.array_equal(as_given["all"], other["all"])


@pytest.mark.parametrize(
    ("kind", "metric", "changes"),
    [
        ("multi_label_classification", "f1_micro", {}),
        ("multi_label_classification", "f1_micro", {"lora.use_dora": True}),
        ("regression", "pearson", {}),
    ],
)
def test_rows_are_judged_by_what_was_learned_of_others(
    kind: str, metric: str, changes: dict[str, object], job: Job, bases: Bases
) -> None:
    """Packed, and one fold after another where no pack takes the job."""
    job = job.replace({"data.problem_type": kind, "train.num_train_epochs": 3, **changes})
    splits = task_splits(job, bases("bert"), 300)
    rows, lines = len(splits.train), list[str]()
    found = out_of_fold(resolve_job(job), splits, np.arange(rows), say=lines.append)
    assert splits.task.score(found.outputs, splits.train.targets)[metric] > 0.7
    assert found.features is not None
    assert len(found.features) == rows
    assert len(lines) == 15, "five folds of three epochs"
    assert lines[0].startswith(f"fold 1     epoch 1  {metric} ")


def test_equal_texts_are_in_one_fold_and_too_few_are_refused(job: Job, bases: Bases) -> None:
    splits = demo_splits(job, bases("bert"), rows=ROWS)
    with pytest.raises(DataError, match="5 folds need 10 different texts in train, or more; found 9"):
        out_of_fold(resolve_job(job), splits, np.arange(len(splits.train)) % 9)
