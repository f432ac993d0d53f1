"""Outputs for train rows by adapters that did not see them: cross-validation in one process."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from transformers import set_seed

from raylora.config import Job
from raylora.errors import DataError
from raylora.model.bank import Bank, Fold
from raylora.model.collator import Collator
from raylora.model.fit.build import build
from raylora.model.fit.fit import fit
from raylora.model.fit.head import Features, NotProbed, brings_head, features, join
from raylora.model.fit.splits import ALONE, Splits, Worker
from raylora.model.fit.start import Start, probe_head
from raylora.model.packing import packable
from raylora.model.predict import predict_logits
from raylora.model.resolved import ResolvedJob
from raylora.records import Say

FOLDS = 5


@dataclass(frozen=True)
class OutOfFold:
    """Of train rows, in their order.

    Args:
        outputs: [N, C] logits, or numbers in the labels' own unit, each by an adapter that did not learn from the row.
        features: [N, H] the mean of the frozen base's last hidden states; None where it has none for each token.
    """

    outputs: np.ndarray
    features: np.ndarray | None


def out_of_fold(
    resolved: ResolvedJob,
    splits: Splits,
    texts: np.ndarray,
    say: Say = lambda line: None,
    worker: Worker = ALONE,
    folds: int = FOLDS,
) -> OutOfFold:
    """Train an adapter for each fold on all other rows of train, side by side over one base where that can be.

    The epoch of each is chosen by the validation rows, as a run's is.

    Args:
        texts: [N] what stands for each train row's text: rows of one are in one fold.
        say: takes a line for each epoch of a fold.

    Raises:
        DataError: train has too few texts for so many folds.
        ConfigError, ModelError, TrainingError: as `fit`.
    """
    splits = replace(splits, start=None, test=None)
    fold_of = _folds(splits, texts, folds)
    known, starts = _starts(resolved, splits, worker, [fold_of != k for k in range(folds)])
    outputs = np.zeros((len(fold_of), len(splits.labels)))
    made = _alone if packable(resolved.job) else _packed
    for k, found in made(resolved, splits, fold_of, starts, say, worker):
        outputs[fold_of == k] = found
    return OutOfFold(outputs, known.mean if known else None)


def _folds(splits: Splits, texts: np.ndarray, folds: int) -> np.ndarray:
    """[N] each row's fold: of every stratum as many texts in each. Rows are in the order of their texts' hashes."""
    _, first, text_of = np.unique(texts, return_index=True, return_inverse=True)
    if len(first) < 2 * folds:
        raise DataError(f"{folds} folds need {2 * folds} different texts in train, or more; found {len(first)}.")
    fold = np.empty(len(first), dtype=np.int64)
    fold[np.argsort(splits.task.strata(splits.train.targets)[first], kind="stable")] = np.arange(len(first)) % folds
    return fold[text_of]


def _starts(
    resolved: ResolvedJob, splits: Splits, worker: Worker, known_rows: Sequence[np.ndarray]
) -> tuple[Features | None, list[Start]]:
    """What the frozen base says of all train rows, and the start of each fold, which knows [N] bool of them."""
    set_seed(resolved.job.seed)
    model: Any = build(resolved, splits.labels, splits.tokenizer.pad_id)
    model = model.to("cuda" if worker.use_gpu else "cpu")
    try:
        train = Collator(splits.train, splits.tokenizer)
        known = join(features(model, train, resolved.job.train.per_device_eval_batch_size))
    except NotProbed as why:
        return None, [Start(reason=str(why), brings_head=brings_head(model))] * len(known_rows)
    if known.head is None or resolved.job.train.head_init != "probe":
        return known, [Start(brings_head=brings_head(model))] * len(known_rows)
    targets = splits.train.targets
    starts = [
        Start(reason=why)
        if (why := splits.task.check_learnable(targets[rows]))
        else probe_head(resolved.job, splits, model, known.head[rows], targets[rows])
        for rows in known_rows
    ]
    return known, starts


Found = Iterator[tuple[int, np.ndarray]]  # a fold, and the outputs of its rows


def _packed(
    resolved: ResolvedJob, splits: Splits, fold_of: np.ndarray, starts: Sequence[Start], say: Say, worker: Worker
) -> Found:
    bank = Bank(resolved, splits, worker)
    for k, start in enumerate(starts):
        bank.admit(str(k), resolved.job, fold=Fold(fold_of == k, start))
    while bank.names:
        for name, result in bank.run_epoch().items():
            if result.error:
                raise result.error
            say(_line(int(name), result.metrics, resolved.job))
            if result.finished:
                rows = np.flatnonzero(fold_of == int(name))
                yield int(name), bank.outputs(name, Collator(splits.train.take(rows), splits.tokenizer))
                bank.drop(name)


def _alone(
    resolved: ResolvedJob, splits: Splits, fold_of: np.ndarray, starts: Sequence[Start], say: Say, worker: Worker
) -> Found:
    task = splits.task
    for k, start in enumerate(starts):
        own = replace(splits, train=splits.train.take(np.flatnonzero(fold_of != k)), start=start)
        model = fit(resolved, own, worker=worker, report=partial(_say_scores, say, k, resolved.job)).model
        held_out = Collator(splits.train.take(np.flatnonzero(fold_of == k)), splits.tokenizer)
        yield k, predict_logits(model, held_out, resolved.job.train.per_device_eval_batch_size, task.pool_windows)


def _say_scores(say: Say, fold: int, job: Job, metrics: Mapping[str, Any], _checkpoint: Path | None) -> None:
    if f"eval_{job.metric}" in metrics:
        say(_line(fold, metrics, job))


def _line(fold: int, metrics: Mapping[str, Any], job: Job) -> str:
    score = metrics[f"eval_{job.metric}"]
    return f"{f'fold {fold + 1}':<11}epoch {metrics['epoch']:g}  {job.metric} {score:.4f}  (validation)"
