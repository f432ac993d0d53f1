"""Sweeps through kills: of the driver, of a worker, of a trial's process. The same leaderboard at the end."""

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from commands import ROOT, command

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

Bases = Callable[[str], Path]
KILLS = int(os.environ.get("RAYLORA_KILLS", "3"))
EPOCHS = 4 * KILLS  # of each trial: enough that the sweep outlives its last kill
LONGEST_S = 1200 + 60 * KILLS  # of a sweep, beside other work on the machine


# A trial's companions in a pack change its numbers by fp32's rounding, 1e-10 of a loss an epoch; at a learning rate of
# 5e-3 that grew to 1e-2 within 20 epochs, at 8e-4 to 1e-8.
def words(base: Path, storage: Path, name: str, *more: str) -> list[str]:
    return [
        "jobs/tune.py",
        f"model.base_model={base}",
        f"storage_path={storage}",
        f"run_name={name}",
        "tune.scheduler=none",
        "tune.metric=loss",
        "tune.num_samples=6",
        "tune.max_concurrent_trials=3",
        "tune.space={lora.r: {choice: [2, 4]}, train.learning_rate: {loguniform: [1e-4, 1e-3]}}",
        f"train.num_train_epochs={EPOCHS}",
        "data.max_length=64",
        "data.max_samples=200",
        *more,
    ]


# By scheduler: what makes its decisions depend on nothing but the scores. ASHA and the median decide by which trial
# came first, HyperBand waits for all of a bracket. PBT takes whom it finds, so that no two sweeps of it are equal.
STOPPING = {
    "asha": ["tune.scheduler=asha", "tune.max_concurrent_trials=1"],
    "median": ["tune.scheduler=median", "tune.max_concurrent_trials=1"],
    # six trials are a whole bracket, of which one goes on after two epochs; a larger bracket would never be halved
    "hyperband": [
        "tune.scheduler=hyperband",
        "tune.max_concurrent_trials=6",
        "tune.time_budget_s=1500",
        "tune.reduction_factor=6",
        "train.num_train_epochs=12",
    ],
    "pbt": ["tune.scheduler=pbt", "tune.space={lora.r: 4, train.learning_rate: {loguniform: [1e-4, 1e-3]}}"],
}


def start(arguments: list[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as file:
        return subprocess.Popen(command(arguments), cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)


def leaderboard(folder: Path) -> list[tuple[str, str, str, str]]:
    rows = csv.DictReader((folder / "trials.csv").open(encoding="utf-8"))
    return [
        (r["train.learning_rate"], f"{float(r['score'] or 'nan'):.5f}", r["epochs"], r["status"] + r["reason"])
        for r in rows
    ]


def epochs_by_trial(folder: Path) -> dict[str, list[float]]:
    """Each once, also one that was trained again."""
    found: dict[str, set[float]] = {}
    for line in (folder / "history.jsonl").read_text().splitlines():
        item = json.loads(line)
        if item["kind"] == "trial":
            found.setdefault(item["trial"], set()).add(item["epoch"])
    return {trial: sorted(epochs) for trial, epochs in found.items()}


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes], timeout_s: float = 240) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert process.poll() is None, "the sweep ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.2)


def lines_with(log: Path, text: str) -> int:
    return log.read_text(errors="replace").count(text)


@pytest.fixture(scope="module")
def whole(bases: Bases, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str, str, str]]:
    """The leaderboard of the sweep that nobody disturbs."""
    storage = tmp_path_factory.mktemp("whole")
    log = storage / "log"
    assert start(words(bases("bert"), storage, "whole"), log).wait(LONGEST_S) == 0, log.read_text()
    rows = leaderboard(storage / "whole")
    assert [row[3] for row in rows] == ["finished"] * 6
    return rows


def test_a_driver_killed_at_random_moments_ends_with_the_same_leaderboard(
    whole: list[tuple[str, str, str, str]], bases: Bases, tmp_path: Path
) -> None:
    arguments, log = words(bases("bert"), tmp_path, "cut"), tmp_path / "log"
    assert kill(arguments, log) == KILLS, "the sweep was over before its last kill"
    finished = (tmp_path / "cut" / "metrics.json").exists()
    assert finished or start(arguments, log).wait(LONGEST_S) == 0, log.read_text(errors="replace")
    assert leaderboard(tmp_path / "cut") == whole
    assert_every_epoch_is_told(tmp_path / "cut")


@pytest.mark.parametrize("scheduler", STOPPING)
def test_a_driver_killed_at_random_moments_stops_the_trials_that_it_would_have_stopped(
    scheduler: str, bases: Bases, tmp_path: Path
) -> None:
    logs = {name: tmp_path / f"{name}.log" for name in ("whole", "cut")}
    whole, cut = (words(bases("bert"), tmp_path, name, *STOPPING[scheduler]) for name in logs)
    assert start(whole, logs["whole"]).wait(LONGEST_S) == 0, logs["whole"].read_text(errors="replace")
    kills = kill(cut, logs["cut"])
    finished = (tmp_path / "cut" / "metrics.json").exists()
    assert finished or start(cut, logs["cut"]).wait(LONGEST_S) == 0, logs["cut"].read_text(errors="replace")
    assert kills, "nothing was shown"
    boards = [leaderboard(tmp_path / name) for name in logs]
    if scheduler == "pbt":
        assert [[row[3] for row in board] for board in boards] == [["finished"] * 6] * 2
    else:
        assert boards[0] == boards[1]
        assert any("stopped" in row[3] for row in boards[0])


def kill(arguments: list[str], log: Path) -> int:
    """Begin the sweep and kill it KILLS times, or as often as it can be; in turn some seconds after the start and some
    after an epoch's line: during start, restoring, epochs, reports."""
    chance = random.Random(1)
    killed = 0
    for turn in range(KILLS):
        process = start(arguments, log)
        seen = lines_with(log, "epoch") if log.exists() else 0
        if turn % 2:
            wait_for(lambda seen=seen, p=process: lines_with(log, "epoch") > seen or p.poll() is not None, process)
        time.sleep(chance.uniform(0, 2 if turn % 2 else 12))
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        killed += 1
    return killed


def assert_every_epoch_is_told(folder: Path) -> None:
    assert list(epochs_by_trial(folder).values()) == [list(range(1, EPOCHS + 1))] * 6


def test_a_checkpoint_that_is_gone_before_ray_tunes_state_says_so_costs_no_trial(
    whole: list[tuple[str, str, str, str]], bases: Bases, tmp_path: Path
) -> None:
    """As a kill leaves it right after a trial's older checkpoint was deleted: the state names one that is gone. Nor had
    the driver written down the last two epochs of each trial."""
    arguments, log = words(bases("bert"), tmp_path, "gone"), tmp_path / "log"
    process = start(arguments, log)
    wait_for(lambda: lines_with(log, "epoch 5 ") == 3, process)
    process.kill()
    process.wait()
    history = tmp_path / "gone" / "history.jsonl"
    history.write_text("".join(history.read_text().splitlines(keepends=True)[:-6]))
    trials = sorted((tmp_path / "gone" / "trials").glob("*/checkpoint_*"))
    assert len(trials) >= 3
    for newest in {path.parent: path for path in trials}.values():
        newest.rename(newest.with_name(f"checkpoint_{int(newest.name[-6:]) + 1:06}"))
    for older in trials:
        shutil.rmtree(older, ignore_errors=True)
    assert start(arguments, log).wait(LONGEST_S) == 0, log.read_text(errors="replace")
    assert "resuming" in log.read_text()
    assert leaderboard(tmp_path / "gone") == whole
    assert_every_epoch_is_told(tmp_path / "gone")


def test_a_killed_worker_and_a_killed_trial_end_with_the_same_leaderboard(
    whole: list[tuple[str, str, str, str]], bases: Bases, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    process = start(words(bases("bert"), tmp_path, "hurt"), log)
    for name, lines in (("ray::TrialWorker", 3), ("ray::ImplicitFunc", 9)):
        wait_for(lambda lines=lines: lines_with(log, "epoch") >= lines, process)
        family = psutil.Process(process.pid).children(recursive=True)
        victims = [child for child in family if any(name in part for part in child.cmdline())]
        assert victims, [child.cmdline() for child in family]
        victims[0].kill()
    assert process.wait(LONGEST_S) == 0, log.read_text(errors="replace")
    assert "was lost" in log.read_text(errors="replace")
    assert leaderboard(tmp_path / "hurt") == whole
