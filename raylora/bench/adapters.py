"""Many adapters from one, and what each more takes of a replica's memory."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import psutil
from safetensors.numpy import load_file, save_file

from raylora.bench.load import Load, Plan, run
from raylora.errors import TrainingError
from raylora.model.serving.adapter import WEIGHTS

NOISE = 0.2  # of a tensor's own spread: other answers than its neighbours', none of them absurd


def make_adapters(folder: Path, count: int, root: Path, seed: int = 0) -> list[str]:
    """Adapter folders in `root` like `folder`, each with weights of its own; the same ones for the same seed.

    Only the weights take disk: the other files, the manifest among them, are one file under many names where the file
    system allows.

    Returns:
        Their names.
    """
    weights = load_file(folder / WEIGHTS)
    others = [path for path in folder.iterdir() if path.is_file() and path.name != WEIGHTS]
    names = [f"a{number:04d}" for number in range(count)]
    for number, name in enumerate(names):
        own = root / name
        own.mkdir(parents=True)
        for path in others:
            _link(path, own / path.name)
        save_file(_noisy(weights, (seed, number)), own / WEIGHTS, {"format": "pt"})
    return names


def _noisy(weights: dict[str, np.ndarray], seed: tuple[int, int]) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    spreads = {name: NOISE * float(tensor.std()) for name, tensor in weights.items()}
    return {
        name: tensor + (spreads[name] * random.standard_normal(tensor.shape)).astype(tensor.dtype)
        for name, tensor in weights.items()
    }


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copyfile(source, target)


def file_bytes(root: Path, names: Sequence[str]) -> float:
    """Mean size of an adapter's weights."""
    return sum((root / name / WEIGHTS).stat().st_size for name in names) / len(names)


def touch(plan: Plan, names: Sequence[str]) -> Load:
    """One request to each adapter, in order, so that each is loaded.

    Raises:
        TrainingError: one did not answer as it should.
    """
    loaded = run(replace(plan, adapters=list(names), once=True, warm_s=0.0, seconds=300.0))
    if loaded.failed or loaded.statuses.get("200", 0) != len(names):
        raise TrainingError(f"of {len(names)} adapters asked once each, the answers were {loaded.statuses}")
    return loaded


@dataclass(frozen=True)
class Growth:
    """Of a server between few and many loaded adapters; `load` is of those loaded between, one at a time."""

    bytes_per_adapter: float
    few_bytes: int
    many_bytes: int
    load: Load


def measure_growth(pid: int, plan: Plan, names: Sequence[str], few: int) -> Growth:
    """Load `few` adapters, then all, and see what the server's replicas hold after a spell of load each time."""
    spell = replace(plan, adapters=list(names[:few]))
    touch(plan, names[:few])
    run(spell)
    before = replica_bytes(pid)
    loaded = touch(plan, names[few:])
    run(spell)
    after = replica_bytes(pid)
    return Growth((after - before) / (len(names) - few), before, after, loaded)


def replica_bytes(pid: int) -> int:
    """Resident memory of all Ray Serve replicas under a process.

    Raises:
        TrainingError: there is none.
    """
    replicas = [p for p in psutil.Process(pid).children(recursive=True) if _title(p).startswith("ray::ServeReplica")]
    if not replicas:
        raise TrainingError(f"process {pid} has no Ray Serve replica under it")
    return sum(replica.memory_info().rss for replica in replicas)


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:  # it ended meanwhile
        return ""
