"""A run and a sweep in a real MLflow server on loopback: nested runs, artifacts, reasons, the same run again."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Generator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from raylora.cluster.events.trackers.follow import tracked
from raylora.cluster.storage.run_folder import FINISHED, RunFolder
from raylora.config import Job
from raylora.errors import TrainingError
from raylora.leaderboard import Trial

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
METRICS = {"validation": {"accuracy": 0.75, "loss": 0.5, "rows": 20}, "test": None}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    place = tmp_path_factory.mktemp("mlflow")
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    stores = [
        "--backend-store-uri",
        f"sqlite:///{place}/mlflow.db",
        "--artifacts-destination",
        str(place / "artifacts"),
    ]
    with (place / "log").open("w") as log:
        process = subprocess.Popen([*command, *stores], stdout=log, stderr=log, cwd=place, start_new_session=True)
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_for(address, process, place / "log")
        yield address
    finally:
        os.killpg(process.pid, 15)
        process.wait(30)


def _wait_for(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + 240
    while process.poll() is None and time.monotonic() < until:
        with suppress(OSError), urllib.request.urlopen(f"{address}/health", timeout=5):
            return
        time.sleep(0.5)
    raise AssertionError(log.read_text()[-2000:])


@pytest.fixture
def client(server: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    return MlflowClient(server)


def job_of(place: Path, name: str) -> Job:
    return Job().replace({"storage_path": str(place), "run_name": name, "train.report_to": ["mlflow"]})


def loss(step: int, value: float) -> dict[str, Any]:
    return {"kind": "loss", "step": step, "epoch": step / 10, "loss": value}


def leave_adapter(folder: RunFolder) -> None:
    folder.location.inside("adapter/adapter_config.json").write_text("{}")
    folder.write_json(FINISHED, METRICS)


def runs_of(client: Any, name: str) -> list[Any]:
    experiment = client.get_experiment_by_name("raylora")
    return client.search_runs([experiment.experiment_id], f"tags.mlflow.runName = '{name}'")


def test_a_run_that_goes_on_is_the_same_run_there(client: Any, tmp_path: Path) -> None:
    job = job_of(tmp_path, "first")
    folder = RunFolder(job)
    with pytest.raises(TrainingError), tracked(job, folder, False, print) as tracking:
        tracking.add([loss(5, 0.7)])
        raise TrainingError("worker 0 failed: no memory")
    (run,) = runs_of(client, "first")
    assert (run.info.status, run.data.tags["failure"]) == ("FAILED", "worker 0 failed: no memory")
    other = job.replace({"ray.num_workers": 2})  # which a run that goes on may change
    with tracked(other, folder, False, print, last_step=5) as tracking:
        tracking.add([loss(10, 0.6)])
        leave_adapter(folder)
        tracking.finish(folder, METRICS)
    (run,) = runs_of(client, "first")
    assert run.info.status == "FINISHED"
    assert [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, "train/loss")] == [
        (5, 0.7),
        (10, 0.6),
    ]
    assert run.data.params["lora.r"] == "8" and run.data.metrics["validation/accuracy"] == 0.75
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == {"adapter", FINISHED}
    assert [file.path for file in client.list_artifacts(run.info.run_id, "adapter")] == ["adapter/adapter_config.json"]


def test_the_trials_of_a_sweep_are_nested_in_it(client: Any, tmp_path: Path) -> None:
    job = job_of(tmp_path, "sweep")
    folder = RunFolder(job)
    trial = {"kind": "trial", "words": "r=4", "sample": {"lora.r": 4}, "step": 10, "epoch": 1.0, "eval_accuracy": 0.5}
    failure = {"kind": "failure", "words": "r=4", "sample": {"lora.r": 4}, "failure": "the run diverged"}
    with tracked(job, folder, True, print) as tracking:
        tracking.add([{**trial, "trial": "a"}, {**failure, "trial": "b"}])
        leave_adapter(folder)
        tracking.finish(folder, METRICS, [Trial("a", {}, "finished"), Trial("b", {}, "failed")])
    (parent,) = runs_of(client, "sweep")
    (a,), (b,) = runs_of(client, "a"), runs_of(client, "b")
    assert {each.data.tags["mlflow.parentRunId"] for each in (a, b)} == {parent.info.run_id}
    assert (a.info.status, a.data.params, a.data.metrics["eval/accuracy"]) == ("FINISHED", {"lora.r": "4"}, 0.5)
    assert (b.info.status, b.data.tags["failure"]) == ("FAILED", "the run diverged")
    assert parent.info.status == "FINISHED" and "tune.num_samples" in parent.data.params


def test_a_server_that_is_not_there_costs_one_warning(
    client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    said: list[str] = []
    job = job_of(tmp_path, "alone")
    with tracked(job, RunFolder(job), False, said.append) as tracking:
        tracking.add([loss(5, 0.7)])
    (line,) = said
    assert line.startswith("warning    mlflow is told no more, and the job goes on without it: ")
