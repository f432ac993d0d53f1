"""Schedulers remember: a sweep that goes on from what a kill left makes the decisions of one that nobody disturbed.

Real Ray Tune, trainables and broker; the worker learns nothing: a trial's loss is a formula, so that decisions depend
on the scheduler alone. A kill at a chosen moment is a copy of the sweep's folder at that moment.
"""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray

from raylora.cluster.storage.run_folder import TRIALS, RunFolder
from raylora.cluster.tune import search, sweep
from raylora.cluster.tune.broker import Broker, Report, TrialRequest
from raylora.cluster.tune.restore import can_go_on
from raylora.cluster.tune.schedulers import MEMORY
from raylora.cluster.tune.trainable import SweepTrainable
from raylora.cluster.tune.trial_progress import TrialProgress, read_progress
from raylora.config import Job
from raylora.config.space import parse_space

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.usefixtures("local_ray")]

EPOCHS = 4
RATES = [0.01 * number for number in range(1, 9)]  # the lower the better: ASHA stops later ones by earlier ones

Ends = dict[float, tuple[str, int, float]]  # of a trial, by its learning rate: status, epochs, score


@ray.remote(num_cpus=0)
class Worker:
    """Trains the trials it takes an epoch each in turn, and copies the folder when so many epochs are done."""

    def run(self, broker: Any, slots: int, folder: str, copies: dict[int, str]) -> None:
        done, running = 0, dict[str, tuple[TrialRequest, TrialProgress]]()

        def ask(method: str, *arguments: Any) -> Any:
            return ray.get(getattr(broker, method).remote(*arguments))

        while True:
            key = next((request.key for request, _ in running.values()), None)
            free = slots - len(running)
            taken: list[TrialRequest] | None = ask("take", "w", key, free, 0.0) if free else []
            for request in taken or []:
                begun = TrialProgress("loss", trainable_parameters=1, latency_ms=1.0)
                begun = read_progress(request.checkpoint) if request.checkpoint else begun
                if begun.epochs == EPOCHS:
                    ask("post", {request.attempt_id: Report(finished=True)})
                else:
                    running[request.attempt_id] = request, begun
            if taken is None:
                return
            for attempt_id, (request, progress) in list(running.items()):
                epoch, rate = progress.epochs + 1, request.tree["train"]["learning_rate"]
                metrics = {"eval_loss": 10 * rate + 0.1 * (EPOCHS - epoch), "epoch": float(epoch)}
                metrics |= {"eval_accuracy": 0.5, "eval_f1": 0.5, "eval_rows": 10}
                report = progress.add(metrics, 0.0, packed=1)
                ask("post", {attempt_id: Report(report, progress.seal({}), finished=epoch == EPOCHS)})
                if not ask("decisions", [attempt_id] * (epoch < EPOCHS), 60):
                    del running[attempt_id]
                done += 1
                if done in copies:
                    time.sleep(2)  # Ray Tune writes its state
                    shutil.copytree(folder, copies[done])


@pytest.fixture
def job(tmp_path: Path) -> Callable[..., Job]:
    def make(name: str, scheduler: str) -> Job:
        changes: dict[str, Any] = {
            "run_name": name,
            "storage_path": str(tmp_path),
            "train.num_train_epochs": EPOCHS,
            "train.metric_for_best_model": "loss",
            "tune.metric": "loss",
            "tune.scheduler": scheduler,
            "tune.time_budget_s": 200,
            "tune.space": {"train.learning_rate": {"grid": RATES}},
        }
        return Job().replace(changes)

    return make


def run(job: Job, slots: int, concurrent: int, copies: dict[int, str]) -> Ends:
    """The sweep, begun or gone on with."""
    folder, space = RunFolder(job), parse_space(job)
    broker = ray.remote(num_cpus=0)(Broker).remote(len(RATES), concurrent, 1)
    worker = Worker.remote()
    running = worker.run.remote(broker, slots, folder.path, copies)
    searcher = None if can_go_on(folder) else search.searcher(job, space, concurrent)
    tuner = sweep._tuner(job, space, SweepTrainable(job, broker, 16, False), searcher, folder)
    grid = tuner.fit()  # not by `read_trials`: in one Ray, a copy's trials get other folders' names
    ray.get(broker.close.remote())
    ray.get(running)
    for actor in (worker, broker):
        ray.kill(actor)
    assert grid.num_errors == 0, grid.errors
    ends: Ends = {}
    for number in range(len(grid)):
        metrics = grid[number].metrics or {}
        status = "stopped" if metrics["epoch"] < EPOCHS else "finished"
        ends[round(metrics["config"]["train.learning_rate"], 4)] = status, round(metrics["epoch"]), metrics["score"]
    return ends


CASES = {  # slots of the worker, trials at once, after how many epochs the folder is copied
    "asha": (1, 1, (6, 8)),
    "median": (1, 1, (12, 14)),
    "hyperband": (1, 8, (10, 12)),
}


@pytest.mark.parametrize("left", ["cut", "late"])  # in one process a sweep is not gone on with twice
@pytest.mark.parametrize("scheduler", CASES)
def test_a_scheduler_decides_after_a_kill_as_it_would_have(
    job: Callable[..., Job], tmp_path: Path, scheduler: str, left: str
) -> None:
    slots, concurrent, moments = CASES[scheduler]
    early, cut = tmp_path / "early", tmp_path / "cut"
    whole = run(job("whole", scheduler), slots, concurrent, dict(zip(moments, map(str, (early, cut)), strict=True)))
    assert "stopped" in {status for status, _, _ in whole.values()}, whole
    late = shutil.copytree(cut, tmp_path / "late") / TRIALS  # Ray Tune's state is older than the scheduler's
    for state in [*late.glob("*.json"), *late.glob("*.pkl")]:
        shutil.copy(early / TRIALS / state.name, state)
    assert (late / MEMORY).read_text() != (early / TRIALS / MEMORY).read_text()
    assert run(job(left, scheduler), slots, concurrent, {}) == whole


def test_pbt_goes_on_with_its_population(job: Callable[..., Job], tmp_path: Path) -> None:
    cut = str(tmp_path / "cut")
    space = {"tune.space": {"train.learning_rate": {"uniform": [0.01, 0.08]}}, "tune.num_samples": 4}
    whole = run(job("whole", "pbt").replace(space), 4, 4, {9: cut})
    assert {ends[:2] for ends in whole.values()} == {("finished", EPOCHS)}
    known = Path(cut, TRIALS, MEMORY).stat().st_size
    resumed = run(job("cut", "pbt").replace(space), 4, 4, {})
    assert {ends[:2] for ends in resumed.values()} == {("finished", EPOCHS)}
    assert known > 1000
