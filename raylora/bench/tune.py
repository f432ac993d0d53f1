"""`bench tune`: packed trials beside trials alone, a sweep beside Ray's recipe, what it costs to start a trial."""

import json
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from raylora.bench.packs import Trained, trials_of, use_gpu
from raylora.bench.processes import Together, run_alone, run_together
from raylora.bench.rows import check_cut, draw
from raylora.bench.sweeps import Swept
from raylora.bench.verdict import cpu, has_amx, target
from raylora.config import Job
from raylora.errors import ConfigError
from raylora.model.packing import pack_key, packable
from raylora.records import Say

Part = Literal["pack", "sweep", "start"]
PARTS: tuple[Part, ...] = ("pack", "sweep", "start")
PACKED, SWEPT, FEW = 8, 16, 4
START_ROWS, TRIAL_S = 64, 30.0


def bench(job: Job, parts: Sequence[Part], repeats: int, speed_rows: int, sweep_rows: int, say: Say) -> None:
    """Print time, memory and scores of each part, and how they compare with the targets; medians of `repeats` runs.

    Args:
        job: with parquet files for train and validation (`check_files`) and a sound search space (`parse_space`).

    Raises:
        ConfigError: its trials cannot share a pack; `check_cut`.
        TrainingError: a rival failed.
    """
    check_cut(job)
    job = job.replace({"tune.search_alg": "random", "tune.scheduler": "asha", "tune.metric": None, "tune.mode": None})
    job = job.replace({"train.metric_for_best_model": "accuracy", "tune.num_samples": SWEPT})
    if "pack" in parts:
        check_pack(job.replace({"tune.num_samples": PACKED}))
    say(f"cpu        {cpu()}")
    with tempfile.TemporaryDirectory() as scratch:
        if "pack" in parts:
            _packs(draw(job, speed_rows, speed_rows // 8 + 1, Path(scratch)), repeats, speed_rows, say)
        if "sweep" in parts:  # as many rows to score on: the best of 16 on a few dozen is the luckiest
            _sweeps(draw(job, sweep_rows, sweep_rows, Path(scratch)), repeats, sweep_rows, say)
        if "start" in parts:
            _starts(draw(job, START_ROWS, START_ROWS // 4, Path(scratch)), repeats, say)


def check_pack(job: Job) -> None:
    """Raises:
    ConfigError: the job's trials cannot be trained over one base together.
    """
    trials = trials_of(job)
    reason = next(filter(None, map(packable, trials)), None)
    if reason or len(set(map(pack_key, trials))) > 1:
        raise ConfigError(
            f"bench tune packs {PACKED} trials of `tune.space`, and these cannot share a pack: "
            f"{reason or 'they differ in more than adapter, rate and epochs'}. Narrow `tune.space`."
        )


@dataclass(frozen=True)
class Way:
    """How the trials are run: packed or not, by so many processes of so many threads."""

    words: str
    how: Literal["packed", "alone"]
    processes: int
    threads: int


def ways(trials: int, cores: int) -> dict[str, Way]:
    """Packed, one after another, all at once; where cores are fewer than trials, also one process a core.

    Threads share out the cores: more of them than cores only take turns.
    """
    each = max(1, cores // trials)
    found = {
        "packed": Way(f"{trials} trials packed over one base", "packed", 1, cores),
        "in turn": Way("one after another", "alone", 1, cores),
        "at once": Way(f"{trials} processes at once", "alone", trials, each),
    }
    if 1 < cores < trials:
        found["per core"] = Way(f"{cores} processes, each its share in turn", "alone", cores, 1)
        found["packed per core"] = Way(f"{cores} processes, each its share packed", "packed", cores, 1)
    return found


def _packs(job: Job, repeats: int, rows: int, say: Say) -> None:
    job = job.replace({"train.num_train_epochs": 1, "tune.num_samples": PACKED})
    job = job.replace({"train.head_init": "random", "train.floor": False})  # a pack would make one start for all
    gpu, batch = use_gpu(job), job.train.per_device_train_batch_size
    for bf16 in (False, True) if gpu or has_amx() else (False,):
        held = f"{'bf16' if bf16 else 'fp32'} on {'GPU' if gpu else 'CPU'}"
        say(f"pack       {rows} rows, one epoch, batch {batch}, {held}, median of {repeats}")
        _pack(job.replace({"train.bf16": bf16}), repeats, 5 if gpu else 2.5 if bf16 else 1.4, say)


def _pack(job: Job, repeats: int, bound: float, say: Say) -> None:
    each = ways(PACKED, torch.get_num_threads())
    runs = [{name: _run(way, job) for name, way in each.items()} for _ in range(repeats)]
    walls = {name: statistics.median(run[name].wall_s for run in runs) for name in each}
    for name, way in each.items():
        words = f"{way.words}, {way.threads} thread{'s' * (way.threads > 1)}{' each' * (way.processes > 1)}"
        memory = max(run[name].peak_bytes for run in runs) / 2**20
        held = max(sum(a["gpu_bytes"] for a in run[name].answers) for run in runs) / 2**20
        on_gpu = f" {held:7,.0f} MiB of the GPU" if held else ""
        ratio = walls["in turn"] / walls[name]
        say(f"  {words:<56} {walls[name]:7.1f} s {memory:7,.0f} MiB{on_gpu}  {ratio:5.2f}x")
    target(say, f"{PACKED} packed trials against one after another", walls["in turn"] / walls["packed"], ">=", bound)
    _say_memory(each["packed"], job, runs, say)
    _say_scores(runs[0], say)


def _run(way: Way, job: Job) -> Together:
    tree, step = json.dumps(job.model_dump()), str(way.processes)
    words = [(way.how, tree, str(first), step, str(way.threads)) for first in range(way.processes)]
    return run_together("raylora.bench.packs", words)


def _say_memory(packed: Way, job: Job, runs: Sequence[Mapping[str, Together]], say: Say) -> None:
    """What one more trial in the bank takes, activations and optimizer included, beside its weights alone."""
    one = _run(packed, job.replace({"tune.num_samples": 1}))
    more = statistics.median(run["packed"].peak_bytes for run in runs) - one.peak_bytes
    weights = statistics.mean(Trained(**runs[0]["packed"].answers[0]).trainable) * 4
    say(
        f"  memory per extra packed trial {more / (PACKED - 1) / 2**20:.1f} MiB at the peak of a step "
        f"(its adapter: {weights / 2**20:.2f} MiB; the base alone: {one.peak_bytes / 2**20:,.0f} MiB)"
    )


def _say_scores(run: Mapping[str, Together], say: Say) -> None:
    first, second = (Trained(**run[name].answers[0]).accuracies for name in ("packed", "in turn"))
    most = max(abs(a - b) for a, b in zip(first, second, strict=True))
    say(f"  largest difference of a trial's validation accuracy, packed against alone: {most:.4f}")


@dataclass(frozen=True)
class Timed:
    wall_s: float
    swept: Swept


def _sweep(name: str, job: Job) -> Timed:
    """A sweep from the start of its process to the end."""
    start = time.perf_counter()
    swept = Swept(**run_alone("raylora.bench.sweeps", name, json.dumps(job.model_dump())))
    return Timed(time.perf_counter() - start, swept)


RECIPES = {
    "raylora": "raylora tune",
    "tutorial": "Ray's recipe, padded to max_length (Tune's example)",
    "padded": "Ray's recipe, padded to the batch's longest",
}


def _sweeps(job: Job, repeats: int, rows: int, say: Say) -> None:
    job = job.replace({"ray.use_gpu": False})
    epochs = job.train.num_train_epochs
    say(f"sweep      {SWEPT} trials, ASHA, {rows} rows to train and to score on, {epochs} epochs, median of {repeats}")
    runs = [{name: _sweep(name, job) for name in RECIPES} for _ in range(repeats)]
    walls = {name: statistics.median(run[name].wall_s for run in runs) for name in RECIPES}
    best = {name: statistics.median(run[name].swept.accuracy for run in runs) for name in RECIPES}
    for name, words in RECIPES.items():
        run_epochs = statistics.median(run[name].swept.epochs for run in runs)
        ratio = walls[name] / walls["raylora"]
        say(f"  {words:<52} {walls[name]:7.1f} s  best accuracy {best[name]:.4f}  {run_epochs:g} epochs  {ratio:5.2f}x")
    target(say, "the recipe's wall time in raylora's", walls["tutorial"] / walls["raylora"], ">=", 6)
    target(say, "best accuracy against the recipe's, points", 100 * (best["raylora"] - best["tutorial"]), ">=", 0)


def _starts(job: Job, repeats: int, say: Say) -> None:
    """What a trial costs beside its training: more trials of next to no rows, in a sweep that runs anyway."""
    job = job.replace({"train.num_train_epochs": 1, "ray.use_gpu": False})
    say(f"start-up   sweeps of {FEW} and of {SWEPT} trials of {START_ROWS} rows, median of {repeats}")
    sizes = {size: job.replace({"tune.num_samples": size}) for size in (FEW, SWEPT)}
    runs = [{size: _sweep("raylora", sized).wall_s for size, sized in sizes.items()} for _ in range(repeats)]
    few, many = (statistics.median(run[size] for run in runs) for size in (FEW, SWEPT))
    each = statistics.median((run[SWEPT] - run[FEW]) / (SWEPT - FEW) for run in runs)
    say(f"  {few:.1f} s and {many:.1f} s: {each:.2f} s for each more trial")
    target(say, f"start-up in percent of a trial of {TRIAL_S:g} s", 100 * each / TRIAL_S, "<=", 10)
