"""Trials over one base, packed or one after another: `python -m raylora.bench.packs HOW JOB FIRST STEP THREADS`.

Waits for `go` once all is imported and the rows are tokenized. Never loads Ray.
"""

import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from raylora.bench.processes import answer, wait_for_go
from raylora.bench.rows import make_splits
from raylora.config import Job, parse
from raylora.config.space import draw_samples, parse_space, trial_job
from raylora.model.bank import Bank
from raylora.model.fit.fit import fit
from raylora.model.fit.splits import Splits, Worker
from raylora.model.resolved import ResolvedJob, resolve_job


@dataclass(frozen=True)
class Trained:
    """Best validation accuracy and trained parameters of each trial; `gpu_bytes` is what torch held of a GPU."""

    accuracies: list[float]
    trainable: list[int]
    gpu_bytes: int


def trials_of(job: Job) -> list[Job]:
    """The first `tune.num_samples` trials of the job's search space."""
    return [trial_job(job, sample) for sample in draw_samples(job, parse_space(job))][: job.tune.num_samples]


def use_gpu(job: Job) -> bool:
    return torch.cuda.is_available() if job.ray.use_gpu == "auto" else job.ray.use_gpu


def packed(trials: Sequence[ResolvedJob], splits: Splits, worker: Worker) -> Trained:
    """All in one bank, saved after each epoch as a sweep does."""
    bank = Bank(trials[0], splits, worker)
    for number, trial in enumerate(trials):
        bank.admit(str(number), trial.job)
    best = dict.fromkeys(bank.names, 0.0)
    trainable = [sum(p.numel() for p in trial.weights.values()) for trial in bank.trials]
    with tempfile.TemporaryDirectory() as scratch:
        while bank.names:
            for name, result in bank.run_epoch().items():
                best[name] = max(best[name], result.metrics["eval_accuracy"])
                bank.save(name, Path(scratch) / name)
                if result.finished:
                    bank.drop(name)
    return Trained(list(best.values()), trainable, _gpu_bytes())


def in_turn(trials: Sequence[ResolvedJob], splits: Splits, worker: Worker) -> Trained:
    """One fit after another, each loading the base anew."""
    fitted = [fit(trial, splits, worker=worker) for trial in trials]
    return Trained([f.validation.accuracy for f in fitted], [f.trainable for f in fitted], _gpu_bytes())


def _gpu_bytes() -> int:
    return torch.cuda.max_memory_reserved() if torch.cuda.is_available() else 0


if __name__ == "__main__":
    how, tree, first, step, threads = sys.argv[1:]
    job = parse(json.loads(tree))
    worker = Worker(threads=int(threads), use_gpu=use_gpu(job))
    trials = [resolve_job(trial, worker.use_gpu) for trial in trials_of(job)[int(first) :: int(step)]]
    splits = make_splits(job, trials[0].base)
    wait_for_go()
    answer((packed if how == "packed" else in_turn)(trials, splits, worker))
