"""The jobs on a real cluster started with `ray start`, and through crashes."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.request import Request, urlopen

import psutil
import pytest
import yaml
from commands import ON_CLUSTERS, ROOT, command, end_processes_of, run
from safetensors.torch import load_file
from tiny import largest_difference, make_adapter

import raylora
from raylora.cluster.session import free_port

pytestmark = pytest.mark.e2e

Bases = Callable[[str], Path]
Write = Callable[[int], str]
DASHBOARD = "http://127.0.0.1:8299"


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A cluster of this machine as `ray start --head` makes it, with token authentication; yields the environment of a
    client that has the token."""
    home, folder = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("ray")
    made = run("ray", "get-auth-token", "--generate", environ={**os.environ, "HOME": str(home)})
    assert made.returncode == 0, made.stderr
    ports = [
        "--port=6399",
        "--dashboard-port=8299",
        "--dashboard-agent-listen-port=8298",
        "--ray-client-server-port=8297",
    ]
    environ = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": made.stdout.strip()}
    # a job's `python` is the one that the cluster was started with
    environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    words = ["--head", "--num-cpus=4", *ports, f"--temp-dir={folder}", "--disable-usage-stats"]
    started = run("ray", "start", *words, environ=environ)
    assert started.returncode == 0, started.stdout + started.stderr
    yield {**environ, "RAY_API_SERVER_ADDRESS": DASHBOARD}
    end_processes_of(folder)


def settings(bases: Bases, data: str, storage: Path, name: str, epochs: int = 2) -> list[str]:
    return [
        f"data.train={data}",
        f"model.base_model={bases('bert')}",
        f"storage_path={storage}",
        f"run_name={name}",
        f"train.num_train_epochs={epochs}",
        "train.learning_rate=0.01",
        "ray.num_workers=2",
    ]


def submit(environ: dict[str, str], *entrypoint: str, timeout_s: float = 240) -> subprocess.CompletedProcess[str]:
    words = ["--working-dir", ".", "--", *entrypoint]
    return run("ray", "job", "submit", *words, environ=environ, timeout_s=timeout_s)


def furthest(a: Path, b: Path) -> float:
    return largest_difference(*(load_file(path / "adapter" / "adapter_model.safetensors") for path in (a, b)))


def last_line(output: str, start: str) -> str:
    return next(line for line in reversed(output.splitlines()) if line.startswith(start))


@pytest.mark.slow
def test_a_submitted_job_gives_what_the_local_one_gives(
    head: dict[str, str], bases: Bases, reviews_file: Write, tmp_path: Path
) -> None:
    data = reviews_file(94)
    local = run("jobs/train.py", *settings(bases, data, tmp_path, "local"), timeout_s=240)
    assert local.returncode == 0, local.stdout + local.stderr
    submitted = submit(head, "python", "jobs/train.py", *settings(bases, data, tmp_path, "submitted"))
    assert submitted.returncode == 0, submitted.stdout + submitted.stderr
    assert "epoch 2 " in submitted.stdout, "the job's own lines come through"
    assert f"predict --adapter {tmp_path}/submitted/adapter" in submitted.stdout, "no way from Ray's working directory"
    assert last_line(submitted.stdout, "validation") == last_line(local.stdout, "validation")
    assert furthest(tmp_path / "local", tmp_path / "submitted") < 1e-5


def test_a_submitted_job_that_fails_says_why_and_exits_with_an_error(head: dict[str, str]) -> None:
    submitted = submit(head, "python", "jobs/train.py", "lora.rank=8")
    assert submitted.returncode != 0
    assert "error: 1 fault in the config:" in submitted.stdout + submitted.stderr


def test_the_package_that_travels_holds_no_runs_and_no_environment(head: dict[str, str]) -> None:
    (ROOT / "runs").mkdir(exist_ok=True)
    marker = ROOT / "runs" / "not-for-the-cluster.txt"
    marker.write_text("x")
    try:
        submitted = submit(head, "python", "-c", "import os; print(sorted(os.listdir()))")
    finally:
        marker.unlink()
    listed = re.search(r"^\[.*'raylora'.*\]$", submitted.stdout, re.M)
    assert listed, submitted.stdout + submitted.stderr
    assert {"'jobs'", "'raylora'", "'pyproject.toml'"} <= set(listed[0].strip("[]").split(", "))
    for name in (".git", ".venv", "runs", "tests"):
        assert f"'{name}'" not in listed[0]


def test_nobody_gets_at_the_cluster_without_its_token(head: dict[str, str]) -> None:
    for mode, token in (("token", "f" * 64), ("disabled", "")):
        stranger = {**head, "RAY_AUTH_MODE": mode, "RAY_AUTH_TOKEN": token}
        refused = submit(stranger, "python", "-c", "print('I was here')")
        assert refused.returncode != 0
        assert "I was here" not in refused.stdout
        assert "authentication" in (refused.stdout + refused.stderr).lower()


def stop_after(environ: dict[str, str], line: str, *entrypoint: str) -> str:
    """Submit a job, follow its output until a line starts like this, stop it; returns all output."""
    words = ["--submission-id", f"stopped-{uuid.uuid4().hex[:8]}", "--working-dir", ".", "--", *entrypoint]
    client = subprocess.Popen(
        command(["ray", "job", "submit", *words]), env=environ, cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    with client:
        assert client.stdout
        seen: list[str] = []
        for each in client.stdout:
            seen.append(each)
            if each.startswith(line):
                break
        else:
            raise AssertionError(f"no line starts with {line!r}:\n{''.join(seen)}")
        stopped = run("ray", "job", "stop", words[1], environ=environ)
        assert stopped.returncode == 0, stopped.stdout + stopped.stderr
        output = "".join(seen) + client.stdout.read()
    assert "was stopped" in output, output  # the client's exit code is 0 then: Ray's word for a stop by hand
    return output


def assert_whole(folder: Path) -> None:
    """Nothing in an interrupted run's folder looks finished or is half written."""
    assert not (folder / "metrics.json").exists()
    assert not (folder / "adapter").exists()
    yaml.safe_load((folder / "config.yaml").read_text())
    for line in (folder / "history.jsonl").read_text().splitlines():
        json.loads(line)
    for path in folder.rglob("*.json"):
        if not path.name.startswith("basic-variant-state"):  # a pickle of Ray Tune's, whatever its name says
            json.loads(path.read_text())
    for path in folder.rglob("*.safetensors"):
        load_file(path)


@pytest.mark.slow
def test_a_stopped_run_goes_on_when_it_is_submitted_again(
    head: dict[str, str], bases: Bases, reviews_file: Write, tmp_path: Path
) -> None:
    job = ["python", "jobs/train.py", *settings(bases, reviews_file(94), tmp_path, "stopped", epochs=60)]
    output = stop_after(head, "epoch 12 ", *job)
    assert "stopped: the same command with the same run_name goes on" in output
    assert_whole(tmp_path / "stopped")
    resumed = submit(head, *job)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    epoch = int(re.findall(r"^resuming +from epoch (\d+) of 60", resumed.stdout, re.M)[0])
    assert 1 <= epoch < 60
    history = [json.loads(line) for line in (tmp_path / "stopped" / "history.jsonl").read_text().splitlines()]
    assert [round(r["epoch"]) for r in history if r["kind"] == "evaluation"] == list(range(1, 61))
    again = submit(head, *job)
    assert again.returncode != 0
    assert "is finished. Choose another `run_name`" in again.stdout


@pytest.mark.slow
def test_a_stopped_sweep_goes_on_when_it_is_submitted_again(
    head: dict[str, str], bases: Bases, reviews_file: Write, tmp_path: Path
) -> None:
    sweep = ["tune.scheduler=none", "tune.num_samples=4", "tune.max_concurrent_trials=2", "ray.num_workers=1"]
    words = [*settings(bases, reviews_file(94), tmp_path, "sweep", epochs=20), *sweep]
    job = ["python", "jobs/tune.py", *words, "tune.space={train.learning_rate: {loguniform: [1e-4, 1e-2]}}"]
    output = stop_after(head, "trial ", *job)
    assert "stopped: the same command" in output
    assert_whole(tmp_path / "sweep")
    resumed = submit(head, *job)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    trials = list(csv.DictReader((tmp_path / "sweep" / "trials.csv").open()))
    assert [(trial["status"], trial["epochs"]) for trial in trials] == [("finished", "20")] * 4
    history = [json.loads(line) for line in (tmp_path / "sweep" / "history.jsonl").read_text().splitlines()]
    assert {(r["trial"], round(r["epoch"])) for r in history} == {
        (trial["trial"], epoch) for trial in trials for epoch in range(1, 21)
    }


@pytest.mark.slow
@ON_CLUSTERS
def test_every_job_can_be_submitted(head: dict[str, str], bases: Bases, reviews_file: Write, tmp_path: Path) -> None:
    """Train and tune above; here those that need an adapter."""
    folder = make_adapter(bases("bert"), tmp_path / "adapter", ("negative", "positive"))
    expected = raylora.load(folder).predict(["Fine"])[0]
    predicted = submit(head, "python", "jobs/predict.py", "--adapter", str(folder), "--json", "Fine")
    assert predicted.returncode == 0, predicted.stdout + predicted.stderr
    found = json.loads(last_line(predicted.stdout, "{"))
    assert (found["label"], found["score"]) == (expected.label, pytest.approx(expected.score, abs=1e-5))
    missing = submit(head, "python", "jobs/predict.py", "--adapter", "gone", "Fine")
    assert missing.returncode != 0
    assert re.search(r"error: adapter \S*gone is not there", missing.stdout)
    port = free_port()
    words = [f"serve.adapters.demo={folder}", f"serve.port={port}", f"storage_path={tmp_path}"]
    served = submit(head, "python", "jobs/serve.py", *words)
    assert served.returncode == 0, served.stdout + served.stderr
    try:
        body = json.dumps({"inputs": "Fine"}).encode()
        url = f"http://127.0.0.1:{port}/predict"
        with urlopen(Request(url, body, {"content-type": "application/json"}), timeout=60) as reply:
            best = json.load(reply)[0][0]
        assert (best["label"], best["score"]) == (expected.label, pytest.approx(expected.score, abs=1e-5))
        ended = submit(head, "python", "jobs/serve.py", *words, "serve.ray_actor_options={num_cpus: 99}")
        assert ended.returncode != 0
        assert "needs 99 CPU; the cluster" in ended.stdout
    finally:
        assert submit(head, "serve", "shutdown", "-y").returncode == 0


@pytest.mark.slow
@ON_CLUSTERS
def test_eight_jobs_at_once_share_the_cluster_and_lose_nothing(
    head: dict[str, str], bases: Bases, reviews_file: Write, tmp_path: Path
) -> None:
    data = reviews_file(60)
    space = "tune.space={train.learning_rate: {loguniform: [1e-4, 1e-2]}}"
    jobs = [["jobs/train.py", *settings(bases, data, tmp_path, f"train{i}")] for i in range(6)]
    jobs += [
        ["jobs/tune.py", *settings(bases, data, tmp_path, f"tune{i}"), "tune.num_samples=3", "ray.num_workers=1", space]
        for i in range(2)
    ]
    clients = [
        subprocess.Popen(
            command(["ray", "job", "submit", "--working-dir", ".", "--", "python", *job]),
            env=head,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for job in jobs
    ]
    outputs = [client.communicate(timeout=600)[0] for client in clients]
    assert [client.returncode for client in clients] == [0] * 8, "\n----\n".join(outputs)
    trained = [json.loads((tmp_path / f"train{i}" / "metrics.json").read_text()) for i in range(6)]
    assert all(each["validation"] == trained[0]["validation"] for each in trained)
    assert max(furthest(tmp_path / "train0", tmp_path / f"train{i}") for i in range(1, 6)) < 1e-5
    tuned = [(tmp_path / f"tune{i}" / "trials.csv").read_text().count("\n") for i in range(2)]
    assert tuned == [4, 4]
    assert any("waiting    for" in output for output in outputs), "4 CPUs for 8 jobs: some wait, and say so"


@pytest.mark.slow
def test_a_driver_that_is_killed_goes_on_with_the_same_command(
    bases: Bases, reviews_file: Write, tmp_path: Path
) -> None:
    words = settings(bases, reviews_file(94), tmp_path, "cut", epochs=12)
    with subprocess.Popen(command(["jobs/train.py", *words]), stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout
        for line in driver.stdout:
            if line.startswith("epoch 3 "):
                break
        driver.kill()
    assert not (tmp_path / "cut" / "metrics.json").exists()
    assert not (tmp_path / "cut" / "adapter").exists()
    resumed = run("jobs/train.py", *words, timeout_s=240)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    epoch = int(re.findall(r"^resuming +from epoch (\d+) of 12", resumed.stdout, re.M)[0])
    assert epoch >= 1
    assert f"epoch {epoch + 1} " in resumed.stdout
    assert f"epoch {epoch} " not in resumed.stdout.split("resuming")[1].split("\n", 1)[1]
    whole = run("jobs/train.py", *settings(bases, reviews_file(94), tmp_path, "whole", epochs=12), timeout_s=240)
    assert whole.returncode == 0, whole.stdout + whole.stderr
    assert furthest(tmp_path / "cut", tmp_path / "whole") == 0
    assert last_line(resumed.stdout, "validation") == last_line(whole.stdout, "validation")


@pytest.mark.slow
def test_a_worker_that_is_killed_is_replaced_and_the_run_goes_on(
    bases: Bases, reviews_file: Write, tmp_path: Path
) -> None:
    words = settings(bases, reviews_file(94), tmp_path, "hurt", epochs=12)
    with subprocess.Popen(command(["jobs/train.py", *words]), stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout
        lines: list[str] = []
        killed = False
        for line in driver.stdout:
            lines.append(line)
            if line.startswith("epoch 3 ") and not killed:
                os.kill(a_worker_of(driver.pid), signal.SIGKILL)
                killed = True
    output = "".join(lines)
    assert killed
    assert driver.returncode == 0, output
    assert output.count("trainable ") == 2, "the worker group started twice"
    assert "epoch 12 " in output
    assert (tmp_path / "hurt" / "metrics.json").is_file()


def a_worker_of(driver: int) -> int:
    """The process of one Ray Train worker below this driver."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        for process in psutil.Process(driver).children(recursive=True):
            if "RayTrainWorker" in " ".join(process.cmdline()):
                return process.pid
    raise AssertionError("no Ray Train worker runs")
