"""One training loop run alone in a process: `python -m raylora.bench.rivals RIVAL JOB scored|speed`."""

import json
import resource
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from typing import Any, Literal

from raylora.bench.processes import answer
from raylora.bench.rows import make_splits
from raylora.config import Job, parse
from raylora.model.fit.splits import Splits
from raylora.model.resolved import ResolvedJob, resolve_job

Rival = Literal["tutorial", "padded", "grouped", "fit", "ray"]


@dataclass(frozen=True)
class Measured:
    """One run. Rates are the training loop's alone, tokens without padding.

    `accuracy` is on the test split, of the best epoch by validation; null where only speed was asked. `frozen_states_s`
    is what the frozen states of the train rows took, `flops_per_row` what a row's matrix products need; both of `fit`.
    """

    rows_per_s: float
    tokens_per_s: float
    train_s: float
    accuracy: float | None
    peak_bytes: int
    frozen_states_s: float = 0.0
    flops_per_row: float = 0.0


def measure(rival: Rival, job: Job, scored: bool) -> Measured:
    """Train once and time the loop; `scored` also evaluates each epoch and tests the best."""
    if rival == "ray":
        return _ray(job)
    if rival == "fit":
        return _fit(job)
    return _trainer(rival, job, scored)


def _trainer(rival: Literal["tutorial", "padded", "grouped"], job: Job, scored: bool) -> Measured:
    from raylora.bench.hf import make_trainer, tokenize

    with tempfile.TemporaryDirectory() as scratch:
        trainer = make_trainer(job, rival, scratch, scored)
        start = time.perf_counter()
        trainer.train()
        train_s = time.perf_counter() - start
        accuracy = None
        if scored:
            scores: Any = trainer.predict(tokenize(job, rival, trainer.processing_class, "test")).metrics
            accuracy = float(scores["test_accuracy"])
    data: Any = trainer.train_dataset
    rows = len(data) * job.train.num_train_epochs
    tokens = sum(sum(mask) for mask in data["attention_mask"]) * job.train.num_train_epochs
    return Measured(rows / train_s, tokens / train_s, train_s, accuracy, _peak())


def _fit(job: Job) -> Measured:
    """raylora's own loop in this process, without Ray."""
    from raylora.bench.flops import flops_per_row
    from raylora.model.collator import Collator
    from raylora.model.fit.fit import fit

    resolved = resolve_job(job)
    splits, frozen_states_s = _with_frozen_states(resolved, make_splits(job, resolved.base))
    fitted = fit(resolved, splits)
    peak, accuracy = _peak(), fitted.test.accuracy if fitted.test else None
    flops = flops_per_row(fitted.model, Collator(splits.train, splits.tokenizer))
    rows_per_s, tokens_per_s = fitted.rows / fitted.train_s, fitted.tokens / fitted.train_s
    return Measured(rows_per_s, tokens_per_s, fitted.train_s, accuracy, peak, frozen_states_s, flops)


def _with_frozen_states(resolved: ResolvedJob, splits: Splits) -> tuple[Splits, float]:
    """The train rows with their frozen states where the job has one, as `fit` would compute it, and its time."""
    from raylora.model.fit.build import build
    from raylora.model.frozen_states import constant_layers, fill

    job = resolved.job
    if not job.lora.layers_to_transform:
        return splits, 0.0
    model = build(resolved, splits.labels, splits.tokenizer.pad_id)
    depth = constant_layers(model)
    if not depth:
        return splits, 0.0
    start = time.perf_counter()
    inside, rows = model.get_base_model(), job.train.per_device_eval_batch_size
    (train,) = fill([splits.train], splits.tokenizer, inside, depth, rows)  # pyright: ignore[reportArgumentType]
    return replace(splits, train=train), time.perf_counter() - start


def _ray(job: Job) -> Measured:
    """The whole train job on a Ray of its own with one worker; the loop's time is the worker's."""
    from raylora.cluster.data.sources import list_sources
    from raylora.cluster.train.job import train

    with tempfile.TemporaryDirectory() as storage:
        job = job.replace({"storage_path": storage, "run_name": "bench", "ray.num_workers": 1})
        metrics = train(job, list_sources(job.data), say=lambda line: None).metrics
    accuracy = metrics["test"]["accuracy"] if metrics["test"] else None
    return Measured(metrics["rows_per_s"], metrics["tokens_per_s"], metrics["train_s"], accuracy, 0)


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    name, tree, how = sys.argv[1:]
    answer(measure(name, parse(json.loads(tree)), how == "scored"))  # pyright: ignore[reportArgumentType]
