"""What int8 costs and gains: rows with known labels through torch, the fp32 graph and the int8 graph, in one run."""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from raylora.model.collator import Collator
from raylora.model.lora.manifest import Manifest
from raylora.model.predict import in_order, logits_of, run_batches
from raylora.model.tokens import TokenizerSpec, TokenTable
from raylora.tasks import Task

ROWS, BATCH = 1000, 32


@dataclass(frozen=True)
class Measured:
    """A metric of the fp32 graph and of the int8 graph; rows a second of each; what changed, in words."""

    metric: str
    rows: int
    fp32: float
    int8: float
    changed: str
    rows_per_s: dict[str, float]

    def lines(self) -> list[str]:
        """For people."""
        speeds = ", ".join(f"{name} {rate:,.0f}" for name, rate in self.rows_per_s.items())
        scores = f"{self.metric} {self.int8:.4f}, in float32 {self.fp32:.4f}"
        return [
            f"int8       {scores}, on {self.rows:,} rows; {self.changed}",
            f"speed      rows/s: {speeds} (batches of {BATCH}, {torch.get_num_threads()} threads)",
        ]


def measure(models: dict[str, Any], table: TokenTable, spec: TokenizerSpec, task: Task, manifest: Manifest) -> Measured:
    """Args:
    models: `torch`, `onnx` and `int8`; each takes a batch and gives logits.
    table: rows with targets; the first thousand are taken.
    """
    table = table.take(np.arange(min(ROWS, len(table))))
    outputs, seconds = _run(models, Collator(table, spec), task)
    thresholds = manifest.learned.threshold_of_each()
    before, after = (task.score(outputs[name], table.targets, thresholds) for name in ("onnx", "int8"))
    return Measured(
        metric=task.metrics[0],
        rows=len(table),
        fp32=before[task.metrics[0]],
        int8=after[task.metrics[0]],
        changed=task.changed(outputs["onnx"], outputs["int8"], thresholds),
        rows_per_s={name: len(table) / spent for name, spent in seconds.items()},
    )


def _run(models: dict[str, Any], collator: Collator, task: Task) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """[N, C] by each model, and how long all took; batch by batch in turn, so that a busy machine is so to all."""
    forwards = {name: logits_of(model, task.pool_windows) for name, model in models.items()}
    seconds, warm = dict.fromkeys(models, 0.0), set[str]()

    def each(batch: dict[str, torch.Tensor]) -> np.ndarray:
        found: list[np.ndarray] = []
        for name, forward in forwards.items():
            if name not in warm:
                warm.add(name)
                forward(batch)
            start = time.perf_counter()
            found.append(forward(batch))
            seconds[name] += time.perf_counter() - start
        return np.stack(found, axis=1)

    together = in_order(list(run_batches(collator, BATCH, each)))
    return {name: together[:, i] for i, name in enumerate(models)}, seconds
