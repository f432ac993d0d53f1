"""A sweep over the weights of labels: each trial as it would be alone, its head's start too."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from tiny import apart, demo_splits, tiny_job

from raylora.cluster.data.sources import list_sources
from raylora.cluster.tune.sweep import tune
from raylora.config.space import trial_job
from raylora.model.fit.fit import fit
from raylora.model.resolved import resolve_job

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("local_ray")]

ROWS = 80
CLOSE = 3e-3  # of `apart`, as in tests/local/test_bank.py
WEIGHTS: list[Any] = [None, {"negative": 30.0}, {"positive": 30.0}]


def test_a_trial_of_a_sweep_over_weights_ends_where_a_fit_would_alone(
    bases: Callable[[str], Path], tmp_path: Path, reviews: list[dict[str, str]]
) -> None:
    (tmp_path / "reviews.jsonl").write_text("".join(json.dumps(row) + "\n" for row in reviews[:ROWS]), encoding="utf-8")
    job = tiny_job(bases("bert")).replace(
        {
            "run_name": "sweep",
            "storage_path": str(tmp_path / "runs"),
            "data.train": str(tmp_path / "reviews.jsonl"),
            "train.num_train_epochs": 1,
            "train.learning_rate": 1e-4,
            "ray.resources_per_worker": {"CPU": 4},
            "tune.space": {"train.class_weights": {"grid": WEIGHTS}},
            "tune.scheduler": "none",
        }
    )
    result = tune(job, list_sources(job.data), say=lambda line: None)
    folder = Path(result.folder_uri)
    trials = list(csv.DictReader((folder / "trials.csv").open(encoding="utf-8")))
    assert len(trials) == len(WEIGHTS)
    for i, weights in enumerate(WEIGHTS):
        own = trial_job(job, {"train.class_weights": weights}).replace({"train.calibrate": False})
        fit(resolve_job(own), demo_splits(own, Path(own.model.base_model), ROWS), save_to=tmp_path / str(i))
    alone = [load_file(tmp_path / str(i) / "adapter_model.safetensors") for i in range(len(WEIGHTS))]
    assert min(apart(alone[0], other) for other in alone[1:]) > CLOSE
    found: list[int] = []
    for trial in trials:
        (checkpoint,) = (folder / "trials" / trial["trial"]).glob("checkpoint_*")
        held = load_file(checkpoint / "best.safetensors")
        state = {n.replace(".modules_to_save.default", "").replace(".default", ""): t for n, t in held.items()}
        found += [i for i, other in enumerate(alone) if apart(state, other) < CLOSE]
    assert sorted(found) == [0, 1, 2]
