"""`bench accuracy`: the floor under a dataset, and what settings reach on its test split after each epoch."""

import statistics
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from raylora.bench.rows import decided, make_splits
from raylora.bench.verdict import cpu
from raylora.config import Job
from raylora.config.file import changed_keys
from raylora.config.space import draw_samples, parse_space, trial_job
from raylora.errors import ConfigError
from raylora.leaderboard import describe
from raylora.model.bank import Bank
from raylora.model.base.find import BaseFolder, resolve
from raylora.model.collator import Collator
from raylora.model.fit.build import build, check_fits
from raylora.model.fit.fit import fit
from raylora.model.fit.splits import Splits, Worker
from raylora.model.fit.start import Start, local_start
from raylora.model.packing import pack_key, packable
from raylora.model.resolved import ResolvedJob, resolve_job
from raylora.records import Say

# what raylora's defaults were before docs/accuracy.md: the DistilBERT tutorial's
TUTORIAL = {
    "train.head_init": "random",
    "lora.target_modules": "auto",
    "train.learning_rate": 5e-4,
    "train.per_device_train_batch_size": 8,
    "train.num_train_epochs": 3,
    "train.early_stopping_patience": None,
}


@dataclass(frozen=True)
class Reached:
    """One setting with one seed.

    Args:
        validation: score after each epoch.
        test: likewise; of a setting trained alone, only that of the adapter it keeps.
        score: on the test split, by the adapter that a run would keep; `kept` on validation.
    """

    validation: list[float]
    test: list[float]
    score: float
    kept: float
    train_s: float


def bench(
    job: Job,
    settings: Mapping[str, Job],
    samples: int,
    seeds: int,
    threads: int | None,
    say: Say,
    *,
    alone: bool = False,
) -> None:
    """Print the baselines' test scores, and each setting's after each epoch and at its best epoch, as means over seeds.

    Settings that differ only in what trials of a pack may differ in are trained together, over one base. One that no
    pack takes is trained by itself, as a run trains it, its thresholds included; its test score is of its best epoch.

    Args:
        job: with parquet files for train and test, and for validation where it is not split off train.
        settings: jobs by name, on the rows of `job`.
        samples: so many of `tune.space` are settings too, each with either start of the head; how the scores after
            the first epoch rank them is then held against how the last ones do.
        alone: train every setting by itself.

    Raises:
        ConfigError: a setting is of other rows or another base, or a sample must be trained alone.
    """
    base, job = resolve(job.model), decided(job)
    settings = {name: one.replace({"data.problem_type": job.data.problem_type}) for name, one in settings.items()}
    metric = job.task.metric_of(job.metric)
    drawn = {init: _samples(job, samples, init) for init in ("probe", "random")} if samples else {}
    settings = {**settings, **{name: one for group in drawn.values() for name, one in group.items()}}
    for name, setting in settings.items():
        _check(name, setting, job, base)
    for name in (name for group in drawn.values() for name in group):
        if reason := packable(settings[name]):
            raise ConfigError(f"setting '{name}' cannot be trained beside others: {reason}. Leave it out.")
    resolved = {name: resolve_job(setting) for name, setting in settings.items()}
    say(f"cpu        {cpu()}")
    floors: list[tuple[float, float]] = []
    found: dict[str, list[Reached]] = {name: [] for name in settings}
    for seed in range(job.seed, job.seed + seeds):
        jobs = {name: setting.replace({"seed": seed}) for name, setting in resolved.items()}
        splits = make_splits(job.replace({"seed": seed}), base)
        start, seconds = _start(next(iter(jobs.values())), splits)
        assert splits.test is not None, "`check_files` asks for it"
        if start.floor is None:
            raise ConfigError(f"bench accuracy needs a floor to compare with, and there is none: {start.reason}.")
        shown = start.floor.splits["test"]
        floors.append((shown.scores("tfidf")[metric], shown.scores("probe")[metric]))
        say(
            f"seed {seed}    {len(splits.train):,} / {len(splits.validation):,} / {len(splits.test):,} rows, "
            f"{len(splits.labels)} labels; test {metric}: TF-IDF {floors[-1][0]:.4f}, linear probe {floors[-1][1]:.4f} "
            f"({seconds:.1f} s, the floor's part {start.floor.seconds:.1f})"
        )
        worker = Worker(threads=threads)
        for names in _packs(jobs, alone=alone):
            if alone or packable(jobs[names[0]].job):
                reached = {names[0]: train_alone(jobs[names[0]], splits, start, worker, metric)}
            else:
                reached = train_pack({name: jobs[name] for name in names}, splits, start, worker, metric)
            for name, one in reached.items():
                found[name].append(one)
                say(f"  {name:<60} {one.score:.4f}  by epoch {_shown(one.test)}  {one.train_s / 60:.1f} min")
    say(f"means      of {seeds} seed{'s' * (seeds > 1)}, test {metric}")
    for name, scores in zip(("TF-IDF", "linear probe"), zip(*floors, strict=True), strict=True):
        say(f"  {name:<60} {statistics.mean(scores):.4f}")
    for name, runs in found.items():
        scores = [run.score for run in runs]
        spread = f" ± {statistics.stdev(scores):.4f}" if seeds > 1 else ""
        each = _shown([statistics.mean(epoch) for epoch in zip(*(run.test for run in runs), strict=False)])
        say(
            f"  {name:<60} {statistics.mean(scores):.4f}{spread}  by epoch {each}  "
            f"validation {statistics.mean(run.kept for run in runs):.4f}"
        )
    for init, group in drawn.items():
        ranks = _rank_correlation([found[name] for name in group])
        say(f"ranks      head_init={init}: correlation of epoch 1 with the last {ranks:.2f}")


def _check(name: str, setting: Job, job: Job, base: BaseFolder) -> None:
    """Raises:
    ConfigError: the setting is of other rows or another base than the job.
    """
    changed = [
        line for line in changed_keys(job, setting) if not line.startswith(("train.", "lora.", "tune.num_samples"))
    ]
    if changed:
        raise ConfigError(f"setting '{name}' changes {changed[0]}; settings are of `train.` and `lora.` alone.")
    check_fits(setting, base)


def _samples(job: Job, count: int, head_init: str) -> dict[str, Job]:
    """Samples of the job's search space, by what they are.

    Raises:
        ConfigError: the space samples the start of the head, of which each sample has both.
    """
    if "train.head_init" in parse_space(job):
        raise ConfigError("--samples trains each sample from both starts of the head: leave `train.head_init` out.")
    own = job.replace({"tune.num_samples": count, "train.head_init": head_init})
    samples = draw_samples(own, parse_space(own))
    return {f"head_init={head_init} {describe(sample)}": trial_job(own, sample) for sample in samples}


def _rank_correlation(settings: Sequence[Sequence[Reached]]) -> float:
    """Spearman's, on validation, of how settings rank after one epoch and at their end; the mean over seeds.

    NaN where all settings score the same.
    """
    from scipy.stats import ConstantInputWarning, spearmanr

    found: list[float] = []
    for runs in zip(*settings, strict=True):
        first, last = [run.validation[0] for run in runs], [run.validation[-1] for run in runs]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConstantInputWarning)
            found.append(float(spearmanr(first, last).statistic))  # pyright: ignore[reportAttributeAccessIssue]
    return statistics.mean(found)


def _shown(scores: Sequence[float]) -> str:
    return " ".join(f"{score:.4f}" for score in scores)


def _start(resolved: ResolvedJob, splits: Splits) -> tuple[Start, float]:
    """Head and floor, the floor on every row of the test split, and the seconds they took."""
    started = time.perf_counter()
    wanted = resolved.replace({"train.head_init": "probe", "train.floor": True})
    model = build(wanted, splits.labels, splits.tokenizer.pad_id)
    start = local_start(wanted.job, splits, model, floor_rows=len(splits.train) + len(splits.test or ()))
    return start, time.perf_counter() - started


def _packs(jobs: Mapping[str, ResolvedJob], *, alone: bool) -> list[list[str]]:
    packs: dict[str, list[str]] = {}
    for name, resolved in jobs.items():
        by_itself = alone or packable(resolved.job)
        packs.setdefault(name if by_itself else pack_key(resolved.job), []).append(name)
    return list(packs.values())


def train_alone(resolved: ResolvedJob, splits: Splits, start: Start, worker: Worker, metric: str) -> Reached:
    """Train a job as a run does; its test score is of the adapter as it is saved."""
    validation: list[float] = []

    def report(metrics: Mapping[str, Any], _checkpoint: Path | None) -> None:
        if f"eval_{metric}" in metrics:
            validation.append(metrics[f"eval_{metric}"])

    fitted = fit(resolved, replace(splits, start=start), worker=worker, report=report)
    assert fitted.test is not None, "`check_files` asks for it"
    score = fitted.test[metric]
    return Reached(validation, [score], score, fitted.validation[metric], fitted.train_s)


def train_pack(
    jobs: Mapping[str, ResolvedJob], splits: Splits, start: Start, worker: Worker, metric: str
) -> dict[str, Reached]:
    """Train jobs of one `pack_key` together; score both splits after each epoch."""
    assert splits.test is not None, "scored by it"
    bank = Bank(next(iter(jobs.values())), replace(splits, start=start), worker)
    test = Collator(splits.test, splits.tokenizer)
    for name, resolved in jobs.items():
        bank.admit(name, resolved.job)
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in jobs}
    best: dict[str, int] = {}
    seconds = dict.fromkeys(jobs, 0.0)
    while bank.names:
        started = time.perf_counter()
        results = bank.run_epoch()
        each = (time.perf_counter() - started) / len(results)
        for name, scores in zip(bank.names, bank.scores(test), strict=True):
            seen[name].append((results[name].metrics[f"eval_{metric}"], scores[metric]))
            best[name] = next(round(t.best.epoch) - 1 for t in bank.trials if t.name == name and t.best)
            seconds[name] += each
        for name, result in results.items():
            if result.error:
                raise result.error
            if result.finished:
                bank.drop(name)
    reached: dict[str, Reached] = {}
    for name, scores in seen.items():
        kept, score = scores[best[name]]
        reached[name] = Reached([each for each, _ in scores], [each for _, each in scores], score, kept, seconds[name])
    return reached
