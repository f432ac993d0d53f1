"""What int8 costs: an adapter's own validation rows, answered in fp32 and in int8."""

from pathlib import Path

import numpy as np
import torch

from raylora.cluster.data.prepare import prepare
from raylora.cluster.data.sources import list_sources
from raylora.cluster.serve import adapter_folders as folders
from raylora.cluster.storage.filesystem import inside
from raylora.config import Job, ModelSection, parse_saved
from raylora.errors import RayLoraError
from raylora.model.base.load import load_tokenizer
from raylora.model.collator import Collator
from raylora.model.lora.manifest import read_manifest, served_base
from raylora.model.predict import in_order, run_batches
from raylora.model.serving.base import ServedBase
from raylora.model.tokens import TokenTable, spec_for
from raylora.records import Say

ROWS, BATCH = 1000, 64


def tell_change(job: Job, say: Say) -> None:
    """Say how good the default adapter is in fp32 and in int8; on a running Ray.

    The rows are those that its run chose its best epoch by: read again from where its config says they are.
    """
    settings = job.serve
    name = settings.default or next(iter(settings.adapters), None)
    if name is None:
        say("int8       no adapter is the default: the change in its scores is not measured")
        return
    path = settings.adapters.get(name) or inside(str(settings.adapter_root), name)
    try:
        with folders.local(folders.find(path)) as folder:
            say(f"int8       {name}: {_change(folder, job.model)}")
    except (RayLoraError, OSError) as error:
        say(f"int8       {name}: the change in its scores is not measured: {error}")


def _change(folder: Path, named: ModelSection) -> str:
    manifest = read_manifest(folder)
    own = parse_saved(manifest.config)
    spec = spec_for(load_tokenizer(str(folder)), manifest)
    splits = prepare(own, list_sources(own.data), spec).load()
    table = splits.validation
    rows = np.arange(min(ROWS, len(table.rows)))  # their order is that of their texts' hashes
    model = served_base(manifest, named)
    exact, coarse = (_outputs(model, folder, table, rows, int8) for int8 in (False, True))
    task, thresholds = splits.task, manifest.learned.threshold_of_each()
    before, after = (task.score(outputs, table.targets[rows], thresholds) for outputs in (exact, coarse))
    metric = task.metrics[0]
    return (
        f"{metric} {after[metric]:.4f}, in float32 {before[metric]:.4f}, on {len(rows):,} of its validation rows; "
        f"{task.changed(exact, coarse, thresholds)}"
    )


def _outputs(model: ModelSection, folder: Path, table: TokenTable, rows: np.ndarray, int8: bool) -> np.ndarray:
    """[N, C] of each row."""
    base = ServedBase(model, torch.float32, torch.device("cpu"), int8)
    adapter = base.load(folder)
    collator = Collator(table.take(rows), adapter.spec)

    def forward(batch: dict[str, torch.Tensor]) -> np.ndarray:
        return np.stack(base.logits(batch, [adapter] * len(batch.get("windows", batch["input_ids"]))))

    return in_order(list(run_batches(collator, BATCH, forward)))
