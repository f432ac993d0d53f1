"""`bench train`: raylora's training loop beside HF's `Trainer`, same rows, same machine, interleaved in one run."""

import json
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raylora.bench.processes import run_alone
from raylora.bench.rivals import Measured, Rival
from raylora.bench.rows import check_cut, draw
from raylora.bench.verdict import cpu, has_amx, has_bf16, target
from raylora.config import Job
from raylora.model.base.find import resolve
from raylora.model.base.load import read_config
from raylora.model.base.precision import resolve_bf16
from raylora.records import Say

FP32, BF16 = {"train.bf16": False}, {"train.bf16": True}


@dataclass(frozen=True)
class Contender:
    """A rival with what the job must have for it; `words` say it in the table."""

    words: str
    rival: Rival
    overrides: dict[str, Any] = field(default_factory=dict)


def contenders(job: Job, top: list[int], bf16: bool) -> dict[str, Contender]:
    """All that are compared. Names: `fit`, `top` and `grouped`, each followed by ` bf16` where it has that.

    Args:
        top: the layers that the frozen states leaves.
        bf16: whether this machine is asked for it.
    """
    narrow = {"lora.layers_to_transform": top}
    found = {
        "tutorial": Contender("HF Trainer, padded to max_length (the tutorial)", "tutorial", FP32),
        "padded": Contender("HF Trainer, padded to the batch's longest", "padded", FP32),
        "grouped": Contender("HF Trainer, grouped by length", "grouped", FP32),
        "fit": Contender("raylora, this process", "fit", FP32),
        "top": Contender(f"raylora, frozen states, top {len(top)} layers", "fit", FP32 | narrow),
    }
    if bf16:
        found |= {
            "grouped bf16": Contender("HF Trainer, grouped by length, bf16 autocast", "grouped", BF16),
            "fit bf16": Contender("raylora, this process, base in bf16", "fit", BF16),
            "top bf16": Contender(f"raylora, frozen states, top {len(top)} layers, bf16", "fit", BF16 | narrow),
        }
    return found | {"ray": Contender("raylora, one Ray Train worker", "ray", {})}


def bench(job: Job, seeds: int, repeats: int, speed_rows: int, top_layers: int, say: Say) -> None:
    """Print speed, memory and accuracy, and how they compare with the targets.

    Speed: one epoch over `speed_rows` rows, each rival in a process of its own, in turn, `repeats` times; medians.
    Accuracy: the job's own epochs over all rows, on its test split, for `seeds` seeds. The tutorial's accuracy is
    that of its twin padded to the batch: padding is masked and changes the speed, not the maths.

    Args:
        job: with parquet files for train, validation and test (`check_files`).
        top_layers: that keep an adapter where the states below them are computed once.

    Raises:
        ConfigError: `check_cut`.
        TrainingError: a rival failed.
    """
    check_cut(job)
    # the loops are compared: what only raylora has before the first step stays out
    job = job.replace({"train.head_init": "random", "train.floor": False})
    layers = int(read_config(resolve(job.model), ("a", "b"), dropout=True).num_hidden_layers)
    default = resolve_bf16(job.train, use_gpu=False)
    rivals = contenders(job, list(range(layers))[-top_layers:], has_bf16() or default)
    say(f"cpu        {cpu()}")
    say(f"speed      {speed_rows} rows, one epoch, batch {job.train.per_device_train_batch_size}, median of {repeats}")
    with tempfile.TemporaryDirectory() as scratch:
        few = draw(job, speed_rows, speed_rows // 8 + 1, Path(scratch)).replace(
            {"train.num_train_epochs": 1, "ray.use_gpu": False}
        )
        runs = [{name: _measure(rival, few) for name, rival in rivals.items()} for _ in range(repeats)]
    rates = {name: statistics.median(run[name].rows_per_s for run in runs) for name in rivals}
    _say_speed(rivals, runs, rates, say)
    say(f"  the job's own train.bf16, {job.train.bf16}, is {default} on this machine")
    _compare(runs, rates, " bf16" if default else "", say)
    _say_frozen_states(runs, job.train.num_train_epochs, say)
    _say_flops(rivals, runs, rates, say)
    if seeds:
        _accuracy(job, rivals["top bf16" if default else "top"], seeds, say)


def _measure(rival: Contender, job: Job, scored: bool = False) -> Measured:
    tree = json.dumps(job.replace(rival.overrides).model_dump())
    return Measured(**run_alone("raylora.bench.rivals", rival.rival, tree, "scored" if scored else "speed"))


Run = Mapping[str, Measured]


def _say_speed(rivals: Mapping[str, Contender], runs: Sequence[Run], rates: Mapping[str, float], say: Say) -> None:
    for name, rival in rivals.items():
        tokens = statistics.median(run[name].tokens_per_s for run in runs)
        peak = max(run[name].peak_bytes for run in runs)
        memory = f"{peak / 2**20:7,.0f} MiB" if peak else " " * 11
        ratio = rates[name] / rates["tutorial"]
        say(f"  {rival.words:<48} {rates[name]:7.1f} rows/s {tokens:8,.0f} tokens/s {memory}  {ratio:5.2f}x")


def _compare(runs: Sequence[Run], rates: Mapping[str, float], default: str, say: Say) -> None:
    """Args:
    default: what follows a name in the precision of the job's own `train.bf16`.
    """
    amx = has_amx()
    own = rates[f"fit{default}"]
    best = max(rate for name, rate in rates.items() if name.startswith("grouped"))
    ray_share = statistics.median(run["ray"].rows_per_s / run[f"fit{default}"].rows_per_s for run in runs)
    target(say, "speed against the tutorial's loop", own / rates["tutorial"], ">=", 8 if amx else 5)
    target(say, "speed against HF Trainer at its best", own / best, ">=", 1.6 if amx else 1.2)
    target(say, "one Ray worker against the same loop without Ray", ray_share, ">=", 0.95)


def _say_frozen_states(runs: Sequence[Run], epochs: int, say: Say) -> None:
    """The frozen states against all layers: a step alone, and a whole training that computes them first."""
    for name in [name for name in runs[0] if name.startswith("top")]:
        whole = name.replace("top", "fit")
        step = statistics.median(run[whole].train_s / run[name].train_s for run in runs)
        total = statistics.median(
            epochs * run[whole].train_s / (epochs * run[name].train_s + run[name].frozen_states_s) for run in runs
        )
        precision = "bf16" if "bf16" in name else "fp32"
        say(f"  frozen states against all layers, {precision}: {step:.2f} a step")
        target(say, f"the same over {epochs} epochs, computing it included", total, ">=", 2)


def _say_flops(rivals: Mapping[str, Contender], runs: Sequence[Run], rates: Mapping[str, float], say: Say) -> None:
    """Arithmetic of raylora's loops beside what the machine's matrix product reaches at best."""
    import torch

    from raylora.bench.flops import matmul_peak

    kinds = {"": torch.float32, " bf16": torch.bfloat16}
    peaks = {kind: matmul_peak(dtype) for kind, dtype in kinds.items() if f"fit{kind}" in rivals}
    shown = ", ".join(f"{str(kinds[kind])[6:]} {peak / 1e9:,.0f}" for kind, peak in peaks.items())
    say(f"flops      matmul peak on {torch.get_num_threads()} threads, GFLOP/s: {shown}")
    for name in [f"{loop}{kind}" for kind in peaks for loop in ("fit", "top")]:
        done = rates[name] * runs[0][name].flops_per_row
        share = done / peaks[name.removeprefix("fit").removeprefix("top")]
        say(f"  {rivals[name].words:<48} {done / 1e9:7.1f} GFLOP/s of the model  {share:4.0%} of the peak")


def _accuracy(job: Job, top: Contender, seeds: int, say: Say) -> None:
    say(f"accuracy   test split, {job.train.num_train_epochs} epochs, all rows, {seeds} seeds")
    rivals = {
        "padded": Contender("HF Trainer, padded to the batch's longest", "padded", FP32),
        "fit": Contender("raylora, this process", "fit"),
        "top": top,
    }
    found: dict[str, list[float]] = {name: [] for name in rivals}
    for seed in range(job.seed, job.seed + seeds):
        for name, rival in rivals.items():
            measured = _measure(rival, job.replace({"seed": seed}), scored=True)
            assert measured.accuracy is not None, "a scored run has an accuracy"
            found[name].append(measured.accuracy)
            say(f"  seed {seed}  {rival.words:<48} {measured.accuracy:.4f}  {measured.train_s:7.1f} s")
    means = {name: statistics.mean(values) for name, values in found.items()}
    say(f"  means: {means['padded']:.4f} (tutorial), {means['fit']:.4f} (raylora), {means['top']:.4f} (frozen states)")
    target(say, "accuracy against the tutorial's, points", 100 * (means["fit"] - means["padded"]), ">=", -0.5)
    target(say, "the frozen states' against all layers', points", 100 * (means["top"] - means["fit"]), ">=", -1)
