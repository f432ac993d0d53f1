"""Metrics of a train run and a sweep, as Prometheus reads them from the node's port."""

import time
import urllib.request
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import ray
from prometheus_client.parser import text_string_to_metric_families
from tiny import tiny_job

from raylora.cluster.data.sources import list_sources
from raylora.cluster.events.metrics import METRICS, SHOWN, Gauges
from raylora.cluster.periodic import run_every
from raylora.cluster.train.job import train
from raylora.cluster.tune.sweep import tune
from raylora.config import Job

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("local_ray")]

REPORTED_S = 60  # Ray's processes report every 4 s here, every 10 s by default
Series = dict[tuple[str, str], float]


def scrape(run: str) -> Series:
    """Values of raylora's metrics of a run, by name and state."""
    (node,) = [node for node in ray.nodes() if node["Alive"]]
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    with urllib.request.urlopen(url, timeout=10) as answer:
        text = answer.read().decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {
        (sample.name, sample.labels.get("state", "")): sample.value
        for sample in samples
        if sample.labels.get("run") == run and "raylora" in sample.name
    }


@contextmanager
def prometheus(run: str) -> Generator[Series]:
    """Reads the port again and again, and keeps each series' last value, as Prometheus does."""
    found = Series()

    def read() -> None:
        with suppress(OSError):
            found.update(scrape(run))

    with run_every(1, read, "prometheus", print):
        yield found


def wait_for(found: Series, complete: Callable[[Series], bool]) -> None:
    until = time.monotonic() + REPORTED_S
    while not complete(found):
        assert time.monotonic() < until, found
        time.sleep(1)


def job_of(base: Path, rows: str, runs: Path, name: str, **changes: Any) -> Job:
    places = {"run_name": name, "storage_path": str(runs), "data.train": rows}
    return tiny_job(base, train__logging_steps=1, **changes).replace(places)


def states(found: Series) -> dict[str, float]:
    return {state: value for (name, state), value in found.items() if name == "ray_raylora_tune_trials"}


def test_a_run_shows_its_loss_rate_speed_and_scores(
    bases: Callable[[str], Path], reviews_file: Callable[[int], str], tmp_path: Path
) -> None:
    job = job_of(bases("bert"), reviews_file(60), tmp_path / "runs", "watched", train__num_train_epochs=2)
    with prometheus("watched") as found:
        result = train(job, list_sources(job.data), say=lambda line: None)
        wait_for(found, lambda found: found.get(("ray_raylora_train_epoch", "")) == 2)
    others = {f"raylora_train_eval_{name}" for name in {*SHOWN} - {*job.task.shown}}
    names = {f"ray_{name}" for name in METRICS if name.startswith("raylora_train_") and name not in others}
    assert {name for name, _ in found} == names
    assert found["ray_raylora_train_rows_per_second", ""] > 0 < found["ray_raylora_train_loss", ""]
    history = (tmp_path / "runs" / "watched" / "history.jsonl").read_text()
    assert f'"eval_loss": {found["ray_raylora_train_eval_loss", ""]}' in history
    assert result.metrics["rows_per_s"] > 0


def test_a_sweep_shows_its_trials_by_state_and_the_best_score(
    bases: Callable[[str], Path], reviews_file: Callable[[int], str], tmp_path: Path
) -> None:
    space = {"train.learning_rate": {"grid": [0.003, 0.01, 1e30]}}
    changes = {"train__num_train_epochs": 1, "train__calibrate": False}
    job = job_of(bases("bert"), reviews_file(60), tmp_path / "runs", "searched", **changes)
    job = job.replace({"tune.space": space, "tune.num_samples": 1, "tune.scheduler": "none", "tune.metric": "loss"})
    with prometheus("searched") as found:
        result = tune(job, list_sources(job.data), say=lambda line: None)
        wait_for(found, lambda found: states(found) == {"waiting": 0, "running": 0, "ended": 2, "failed": 1})
    assert found["ray_raylora_tune_best_score", ""] == pytest.approx(result.validation.loss, abs=1e-5)
    assert found["ray_raylora_tune_epochs_total", ""] == 2


def test_what_cannot_be_shown_harms_nobody() -> None:
    gauges = Gauges("x")
    gauges.show("raylora_train_loss", "none")  # pyright: ignore[reportArgumentType]
    gauges.show("no_such_metric", 1.0)
    gauges.add([{"kind": "loss", "loss": None}])


@pytest.mark.slow
def test_a_gauge_stays_while_its_job_lives_however_long_an_epoch_takes() -> None:
    gauges = Gauges("slow")
    with prometheus("slow") as found, gauges.kept():
        gauges.show("raylora_train_loss", 0.5)
        wait_for(found, bool)
        time.sleep(16)  # Ray forgets after two reports
        assert scrape("slow") == {("ray_raylora_train_loss", ""): 0.5}
