"""A whole sweep, alone in a process: `python -m raylora.bench.sweeps raylora|tutorial|padded JOB`.

The last two are Ray's own recipe for HF's `Trainer`, as its examples have it: `ray.tune.examples.pbt_transformers`
(rows padded to max_length, evaluated and saved each epoch, the best loaded at the end, 1 CPU a trial), and "Fine-tune
a Hugging Face Transformers Model" in Ray Train's documentation (rows padded to the batch's longest, ASHA over reports
made on each save). A trial is a process that reads and tokenizes the rows and loads the base.
"""

import csv
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray.tune
from ray.tune import Checkpoint, CheckpointConfig, RunConfig, TuneConfig, Tuner
from ray.tune.schedulers import ASHAScheduler
from transformers import TrainerCallback

from raylora.bench.hf import Loop, make_trainer
from raylora.bench.processes import answer
from raylora.cluster.data.sources import list_sources
from raylora.cluster.session import connect
from raylora.cluster.tune import search
from raylora.cluster.tune.sweep import tune
from raylora.config import Job, parse
from raylora.config.space import from_plain, parse_space, trial_job
from raylora.errors import TrainingError


@dataclass(frozen=True)
class Swept:
    """`accuracy` is the best on the validation split; `epochs` of all trials together."""

    accuracy: float
    trials: int
    epochs: int


def raylora(job: Job, storage: str) -> Swept:
    job = job.replace({"storage_path": storage, "run_name": "sweep"})
    result = tune(job, list_sources(job.data), say=lambda line: None)
    rows = csv.DictReader((Path(result.folder_uri) / "trials.csv").read_text(encoding="utf-8").splitlines())
    return Swept(result.validation.accuracy, result.trials, sum(int(row["epochs"]) for row in rows))


class ReportToTune(TrainerCallback):
    """Reports each epoch with its checkpoint, as `ray.train.huggingface.transformers.RayTrainReportCallback` does."""

    def __init__(self) -> None:
        self.best = 0.0

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        accuracy = next(r["eval_accuracy"] for r in reversed(state.log_history) if "eval_accuracy" in r)
        self.best = max(self.best, accuracy)
        folder = f"{args.output_dir}/checkpoint-{state.global_step}"
        ray.tune.report({"accuracy": accuracy, "best": self.best}, checkpoint=Checkpoint.from_directory(folder))


def recipe(job: Job, loop: Loop, storage: str) -> Swept:
    """The same samples as raylora's, under the same scheduler.

    Raises:
        TrainingError: a trial failed.
    """
    space, rules = parse_space(job), job.tune

    def trial(sample: dict[str, Any]) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            make_trainer(
                trial_job(job, from_plain(sample)), loop, scratch, scored=True, callbacks=[ReportToTune()]
            ).train()

    scheduler = ASHAScheduler(
        max_t=job.train.num_train_epochs, grace_period=rules.grace_period, reduction_factor=rules.reduction_factor
    )
    with connect(job.ray):
        grid = Tuner(
            ray.tune.with_resources(trial, {"CPU": 1}),
            param_space=search.param_space(job, space),
            tune_config=TuneConfig(
                metric="accuracy",
                mode="max",
                num_samples=search.num_samples(job, space),
                scheduler=scheduler,
                search_alg=search.searcher(job, space, concurrent=rules.num_samples),  # the CPUs limit it
            ),
            run_config=RunConfig(
                name="recipe", storage_path=storage, checkpoint_config=CheckpointConfig(num_to_keep=1), verbose=0
            ),
        ).fit()
    if grid.num_errors:
        raise TrainingError(str(grid.errors[0]))
    ended = [result.metrics or {} for result in grid]
    return Swept(max(m["best"] for m in ended), len(ended), sum(m["training_iteration"] for m in ended))


if __name__ == "__main__":
    name, tree = sys.argv[1:]
    job = parse(json.loads(tree))
    with tempfile.TemporaryDirectory() as storage:
        answer(raylora(job, storage) if name == "raylora" else recipe(job, name, storage))  # pyright: ignore
