"""Sweeps on a local Ray: packed and alone, failing and stopped, resumed; the winner is what train makes of it."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from tiny import largest_difference, tiny_job

import raylora
from raylora.cluster.data.sources import list_sources
from raylora.cluster.storage.listing import list_runs, show_run
from raylora.cluster.train.job import train
from raylora.cluster.tune.sweep import tune
from raylora.config import Job
from raylora.config import file as jobfile
from raylora.errors import ConfigError, TrainingError
from raylora.records import TuneResult

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("local_ray")]

Bases = Callable[[str], Path]


def sweep_job(base: Path, rows: str, runs: Path, name: str, space: dict[str, Any], **changes: Any) -> Job:
    """Two epochs on few rows, one worker."""
    settings = {"tune.space": space, "tune.scheduler": "none", "tune.num_samples": 1, "tune.metric": "loss"}
    slots = {"run_name": name, "storage_path": str(runs), "data.train": rows, "data.test": rows}
    common = {
        "train.num_train_epochs": 2,
        "train.max_grad_norm": 0.0,
        "train.calibrate": False,
        "ray.resources_per_worker": {"CPU": 4},
    }
    job = tiny_job(base).replace({**slots, **common, **settings})
    return job.replace({key.replace("__", "."): value for key, value in changes.items()})


def run(job: Job, lines: list[str]) -> TuneResult:
    return tune(job, list_sources(job.data), say=lines.append)


class Done:
    """A finished sweep with what it said and wrote."""

    def __init__(self, job: Job) -> None:
        self.job, self.lines = job, list[str]()
        self.result = run(job, self.lines)
        self.folder = Path(self.result.folder_uri)
        self.rows = list(csv.DictReader((self.folder / "trials.csv").open(encoding="utf-8")))


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory, reviews: list[dict[str, str]]) -> str:
    path = tmp_path_factory.mktemp("rows") / "reviews.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in reviews[:80]), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def done(bases: Bases, rows: str, tmp_path_factory: pytest.TempPathFactory) -> Done:
    """Three rates, one of which diverges, with LoRA (packed) and with DoRA (alone)."""
    targets = [["query", "value"]]  # lists are values too
    space = {"train.learning_rate": {"grid": [0.003, 0.01, 1e30]}, "lora.use_dora": {"grid": [False, True]}}
    changes = {
        "train__floor": True,
        "lora__lora_dropout": 0.1,
        "train__report_to": ["tensorboard"],
        "tune__space": space | {"lora.target_modules": {"choice": targets}},
    }
    return Done(sweep_job(bases("bert"), rows, tmp_path_factory.mktemp("runs"), "sweep", space, **changes))


def test_every_trial_is_accounted_for_best_first(done: Done) -> None:
    assert [row["status"] for row in done.rows] == ["finished"] * 4 + ["failed"] * 2
    losses = [float(row["score"]) for row in done.rows[:4]]
    assert losses == sorted(losses) and len(set(losses)) == 4
    assert [row["rank"] for row in done.rows] == ["1", "2", "3", "4", "5", "6"]
    assert all(int(row["trainable_parameters"]) > 0 and float(row["train_s"]) > 0 for row in done.rows[:4])
    assert done.result.trials == 6


def test_the_sweeps_winner_stands_beside_its_floor(done: Done) -> None:
    metrics = json.loads((done.folder / "metrics.json").read_text())
    manifest = json.loads((done.folder / "adapter" / "raylora.json").read_text())
    assert metrics["floor"] == manifest["floor"] == done.result.floor
    for split, scores in (("validation", done.result.validation), ("test", done.result.test)):
        found = metrics["floor"][split]
        highest = found[found["difference"]["against"]]["accuracy"]
        assert found["difference"]["value"] == pytest.approx(scores.accuracy - highest)
    for words, baseline in (("TF-IDF", "tfidf"), ("linear probe", "probe")):
        score = metrics["floor"]["validation"][baseline]["accuracy"]
        shown = f"-    {'-':<10}{words}: accuracy {score:.4f}, without an adapter"  # the sweep is by loss
        assert shown in done.lines


def test_a_tracker_holds_the_sweep_and_each_trial_that_told_of_itself(done: Done) -> None:
    files = {
        str(path.parent.relative_to(done.folder / "tensorboard")) for path in done.folder.rglob("tensorboard/**/ev*")
    }
    assert files == {".", *(row["trial"] for row in done.rows)}


def test_the_sweep_is_listed_as_it_ended(done: Done) -> None:
    (summary,) = list_runs(str(done.folder.parent))
    assert (summary.name, summary.kind, summary.state, summary.reached) == ("sweep", "sweep", "finished", "6 trials")
    assert summary.validation == done.result.validation.as_dict()
    history = show_run(str(done.folder.parent), "sweep").history
    assert [(each["epoch"], "eval_loss" in each) for each in history] == [(2, True)] * 4
    assert min(each["score"] for each in history) == pytest.approx(float(done.rows[0]["score"]), abs=1e-5)


def test_a_failed_trial_says_why_and_the_others_go_on(done: Done) -> None:
    for row in done.rows[4:]:
        assert float(row["train.learning_rate"]) == 1e30
        assert "the run diverged" in row["reason"]


def test_lora_trials_share_a_pack_and_dora_trials_run_alone(done: Done) -> None:
    packed = {(row["lora.use_dora"], row["packed"]) for row in done.rows[:4]}
    assert packed <= {("False", "3"), ("False", "2"), ("True", "1")}
    assert {dora for dora, _ in packed} == {"False", "True"}


def test_the_winner_is_the_best_by_validation_and_alone_is_tested(done: Done) -> None:
    assert done.result.validation.loss == pytest.approx(float(done.rows[0]["score"]), abs=1e-5)
    assert done.result.test is not None
    assert done.result.test.rows == 80
    history = [json.loads(line) for line in (done.folder / "history.jsonl").read_text().splitlines()]
    assert [item["kind"] for item in history if "epoch" not in item] == ["failure"] * 2
    assert {(item["trial"], item["epoch"]) for item in history if item["kind"] == "trial"} == {
        (row["trial"], epoch) for row in done.rows[:4] for epoch in (1.0, 2.0)
    }
    assert not any("test" in key for item in history for key in item)
    metrics = json.loads((done.folder / "metrics.json").read_text())
    assert metrics["trials"] == {"finished": 4, "stopped": 0, "failed": 2}
    gap = done.result.test.accuracy - done.result.validation.accuracy
    assert metrics["test_minus_validation"] == pytest.approx(gap)


def test_the_adapter_is_an_ordinary_one(done: Done) -> None:
    adapter = raylora.load(done.result.adapter_uri)
    assert adapter.labels == ("negative", "positive")
    assert adapter.manifest.metrics["validation"]["loss"] == done.result.validation.loss
    assert adapter.predict(["A kettle."])[0].label in adapter.labels


def test_train_repeats_the_winner_from_best_config(done: Done) -> None:
    best = jobfile.read([str(done.folder / "best_config.yaml"), "run_name=again"], {})
    again = train(best, list_sources(best.data), say=lambda line: None)
    assert again.validation.accuracy == done.result.validation.accuracy
    assert again.validation.loss == pytest.approx(done.result.validation.loss, abs=1e-4)
    assert again.best_epoch == done.result.metrics["winner"]["best_epoch"]
    weights = [load_file(f"{r.adapter_uri}/adapter_model.safetensors") for r in (again, done.result)]
    assert largest_difference(*weights) < 1e-3


def test_a_finished_sweep_is_never_written_again(done: Done) -> None:
    with pytest.raises(ConfigError, match="is finished"):
        run(done.job, [])


def test_what_no_trial_can_be_ends_before_anything_starts(bases: Bases, rows: str, tmp_path: Path) -> None:
    def refused(space: dict[str, Any]) -> str:
        with pytest.raises(ConfigError) as caught:
            run(sweep_job(bases("bert"), rows, tmp_path, "x", space), [])
        assert not (tmp_path / "x").exists()
        return str(caught.value)

    assert "`lora.r` must be at most 32" in refused({"lora.r": {"grid": [4, 64]}})
    assert "has no module 'q_lin'" in refused({"lora.target_modules": {"grid": [["query"], ["q_lin"]]}})
    assert "unknown key" in refused({"lora.rank": {"grid": [4]}})


def test_a_sweep_whose_every_trial_fails_is_an_error(bases: Bases, rows: str, tmp_path: Path) -> None:
    space = {"lora.r": {"grid": [2, 4]}}
    job = sweep_job(bases("bert"), rows, tmp_path, "all", space, tune__max_trainable_parameters=10)
    with pytest.raises(TrainingError, match=r"all 2 trials failed:\n.*not run: \d+ trainable parameters"):
        run(job, [])
    assert not (tmp_path / "all" / "metrics.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("scheduler", ["asha", "hyperband", "median"])
def test_a_scheduler_stops_trials_by_their_epochs(bases: Bases, rows: str, tmp_path: Path, scheduler: str) -> None:
    space = {"train.learning_rate": {"grid": [0.05, 0.02, 0.01, 0.003, 1e-5, 1e-6, 1e-7, 1e-8]}}
    changes: dict[str, Any] = {"tune__scheduler": scheduler, "train__num_train_epochs": 4, "tune__time_budget_s": 100}
    done = Done(sweep_job(bases("bert"), rows, tmp_path, scheduler, space, **changes))
    stopped = [row for row in done.rows if row["status"] == "stopped"]
    assert stopped and all(int(row["epochs"]) < 4 for row in stopped)
    assert done.rows[0]["status"] == "finished"
    assert not any(row["status"] == "failed" for row in done.rows), done.lines


@pytest.mark.slow
def test_pbt_hands_the_better_weights_on(bases: Bases, rows: str, tmp_path: Path) -> None:
    space = {"train.learning_rate": {"loguniform": [1e-7, 0.03]}, "lora.r": 4}
    changes: dict[str, Any] = {"tune__scheduler": "pbt", "train__num_train_epochs": 6, "tune__num_samples": 4}
    done = Done(sweep_job(bases("bert"), rows, tmp_path, "pbt", space, **changes))
    assert [row["status"] for row in done.rows] == ["finished"] * 4, done.lines


@pytest.mark.slow
@pytest.mark.parametrize("search_alg", ["optuna", "bayesian"])
def test_a_search_learns_two_objectives(bases: Bases, rows: str, tmp_path: Path, search_alg: str) -> None:
    targets = {"choice": [["query"], ["query", "value"]]}
    space = {"lora.target_modules": targets, "train.learning_rate": {"loguniform": [1e-3, 0.03]}}
    both = ["loss", "trainable_parameters"]
    changes = {"tune__search_alg": search_alg, "tune__num_samples": 6, "tune__metric": both}
    done = Done(sweep_job(bases("bert"), rows, tmp_path, search_alg, space, tune__max_concurrent_trials=3, **changes))
    front = [row for row in done.rows if row["pareto"] == "1"]
    assert front[0] == done.rows[0]
    assert any(line.startswith("pareto") for line in done.lines)
    sizes = [int(row["trainable_parameters"]) for row in front]
    assert sizes == sorted(sizes, reverse=True)
