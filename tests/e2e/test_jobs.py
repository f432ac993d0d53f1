"""The jobs on a real cluster started with `ray start`, and through crashes."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from commands import ROOT, command, run
from safetensors.torch import load_file
from tiny import largest_difference

pytestmark = pytest.mark.e2e

Bases = Callable[[str], Path]
Write = Callable[[int], str]
DASHBOARD = "http://127.0.0.1:8299"


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A cluster of this machine, as `ray start --head` makes it; yields the environment to reach it from."""
    ports = [
        "--port=6399",
        "--dashboard-port=8299",
        "--dashboard-agent-listen-port=8298",
        "--ray-client-server-port=8297",
    ]
    folder = tmp_path_factory.mktemp("ray")
    # a job's `python` is the one that the cluster was started with
    environ = {**os.environ, "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}
    started = run(
        "ray",
        "start",
        "--head",
        "--num-cpus=4",
        *ports,
        f"--temp-dir={folder}",
        "--disable-usage-stats",
        environ=environ,
    )
    assert started.returncode == 0, started.stdout + started.stderr
    yield {**os.environ, "RAY_API_SERVER_ADDRESS": DASHBOARD}
    subprocess.run(["pkill", "-f", str(folder)], check=False)  # `ray stop` would take the session's own Ray with it


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


def submit(environ: dict[str, str], *entrypoint: str) -> subprocess.CompletedProcess[str]:
    return run("ray", "job", "submit", "--working-dir", ".", "--", *entrypoint, environ=environ, timeout_s=240)


def furthest(a: Path, b: Path) -> float:
    return largest_difference(*(load_file(path / "adapter" / "adapter_model.safetensors") for path in (a, b)))


def last_line(output: str, start: str) -> str:
    return next(line for line in reversed(output.splitlines()) if line.startswith(start))


def test_a_submitted_job_gives_what_the_local_one_gives(
    head: dict[str, str], bases: Bases, reviews_file: Write, tmp_path: Path
) -> None:
    data = reviews_file(94)
    local = run("jobs/train.py", *settings(bases, data, tmp_path, "local"), timeout_s=240)
    assert local.returncode == 0, local.stdout + local.stderr
    submitted = submit(head, "python", "jobs/train.py", *settings(bases, data, tmp_path, "submitted"))
    assert submitted.returncode == 0, submitted.stdout + submitted.stderr
    assert "epoch 2 " in submitted.stdout, "the job's own lines come through"
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
    import psutil

    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        for process in psutil.Process(driver).children(recursive=True):
            if "RayTrainWorker" in " ".join(process.cmdline()):
                return process.pid
    raise AssertionError("no Ray Train worker runs")
