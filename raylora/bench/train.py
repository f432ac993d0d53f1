"""`bench train`: raylora's training loop beside HF's `Trainer`, same rows, same machine, interleaved in one run."""

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from raylora.bench.rivals import Measured, Rival
from raylora.config import Job
from raylora.errors import ConfigError, TrainingError
from raylora.records import Say

SPEED: tuple[Rival, ...] = ("tutorial", "padded", "grouped", "fit", "ray")
NAMES = {
    "tutorial": "HF Trainer, padded to max_length (the tutorial)",
    "padded": "HF Trainer, padded to the batch's longest",
    "grouped": "HF Trainer, grouped by length",
    "fit": "raylora, this process",
    "ray": "raylora, one Ray Train worker",
}


def bench(job: Job, seeds: int, repeats: int, speed_rows: int, say: Say) -> None:
    """Print speed, memory and accuracy, and how they compare with the targets.

    Speed: one epoch over `speed_rows` rows, each rival in a process of its own, in turn, `repeats` times; medians.
    Accuracy: the job's own epochs over all rows, on its test split, for `seeds` seeds. The tutorial's accuracy is
    that of its twin padded to the batch: padding is masked and changes the speed, not the maths.

    Raises:
        ConfigError: the job has no parquet files for train, validation and test.
        TrainingError: a rival failed.
    """
    _check(job)
    say(f"cpu        {_cpu()}")
    say(f"speed      {speed_rows} rows, one epoch, batch {job.train.per_device_train_batch_size}, median of {repeats}")
    with tempfile.TemporaryDirectory() as scratch:
        few = _sample(str(job.data.train), speed_rows, job.seed, Path(scratch) / "train.parquet")
        short = job.replace({"data.train": few, "train.num_train_epochs": 1})
        runs = [{name: _measure(name, short, scored=False) for name in SPEED} for _ in range(repeats)]
    medians = {name: statistics.median(run[name].rows_per_s for run in runs) for name in SPEED}
    for name in SPEED:
        tokens = statistics.median(run[name].tokens_per_s for run in runs)
        peak = max(run[name].peak_bytes for run in runs)
        memory = f"{peak / 2**20:7,.0f} MiB" if peak else " " * 11
        ratio = medians[name] / medians["tutorial"]
        say(f"  {NAMES[name]:<48} {medians[name]:7.1f} rows/s {tokens:8,.0f} tokens/s {memory}  {ratio:5.2f}x")
    ray_share = statistics.median(run["ray"].rows_per_s / run["fit"].rows_per_s for run in runs)
    _target(say, "speed against the tutorial's loop", medians["fit"] / medians["tutorial"], ">=", 5)
    _target(say, "one Ray worker against the same loop without Ray", ray_share, ">=", 0.95)
    if seeds:
        _accuracy(job, seeds, say)


def _sample(path: str, rows: int, seed: int, target: Path) -> str:
    """A file of `rows` random rows, the same for every rival."""
    import numpy as np
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(path)
    pyarrow.parquet.write_table(table.take(np.random.default_rng(seed).permutation(len(table))[:rows]), target)
    return str(target)


def _accuracy(job: Job, seeds: int, say: Say) -> None:
    say(f"accuracy   test split, {job.train.num_train_epochs} epochs, all rows, {seeds} seeds")
    found: dict[str, list[float]] = {"padded": [], "fit": []}
    for seed in range(job.seed, job.seed + seeds):
        for name in ("padded", "fit"):
            measured = _measure(name, job.replace({"seed": seed}), scored=True)
            assert measured.accuracy is not None, "a scored run has an accuracy"
            found[name].append(measured.accuracy)
            say(f"  seed {seed}  {NAMES[name]:<48} {measured.accuracy:.4f}  {measured.train_s:7.1f} s")
    means = {name: statistics.mean(values) for name, values in found.items()}
    say(f"  means: {means['padded']:.4f} (tutorial), {means['fit']:.4f} (raylora)")
    _target(say, "accuracy against the tutorial's, points", 100 * (means["fit"] - means["padded"]), ">=", -0.5)


def _target(say: Say, what: str, value: float, sign: str, target: float) -> None:
    say(f"  {'met   ' if value >= target else 'MISSED'}  {what}: {value:.2f} (target {sign} {target})")


def _measure(name: Rival, job: Job, scored: bool) -> Measured:
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(job.model_dump(), file)
        file.flush()
        command = [sys.executable, "-m", "raylora.bench.rivals", name, file.name, "scored" if scored else "speed"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise TrainingError(f"bench of '{name}' failed:\n{done.stderr[-2000:]}")
    return Measured(**json.loads(done.stdout.strip().splitlines()[-1]))


def _check(job: Job) -> None:
    files: Sequence[object] = (job.data.train, job.data.validation, job.data.test)
    if not all(isinstance(f, str) and f.endswith(".parquet") and Path(f).is_file() for f in files):
        raise ConfigError(
            "bench train needs `data.train`, `.validation` and `.test`, each one parquet file that is there."
        )


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return "unknown"
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    found = {key.strip(): value.strip() for key, value in fields.items()}
    flags = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in found.get("flags", "").split()]
    return f"{found.get('model name', 'unknown')}, flags: {' '.join(flags)}"
