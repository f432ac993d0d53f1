"""The workers of a sweep on a local Ray: watched whatever else fails, and a worker that failed makes room."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
import ray

from raylora.cluster.placement import WorkerPlan
from raylora.cluster.storage.filesystem import Location
from raylora.cluster.storage.run_folder import RunFolder
from raylora.cluster.tune.broker import Report, TrialRequest
from raylora.cluster.tune.pool import PoolPlan, WorkerPool
from raylora.config import Job

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("local_ray")]


class Pool:
    """A pool of one worker that takes all CPUs, and knows no base: its `run` raises at the first trial it takes."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.lines = folder, list[str]()
        self.job = Job().replace({"storage_path": str(folder), "run_name": "sweep"})
        plan = PoolPlan(WorkerPlan(1, False, {"CPU": 4.0}, 1), count=1, concurrent=1)
        self.pool = WorkerPool(self.job, plan, 1, {}, RunFolder(self.job), self.lines.append)

    def try_trial(self, broker: Any) -> Report:
        """The first report of an attempt."""
        request = TrialRequest("a", self.job.model_dump(), None, 1, "r=4")
        attempt_id = ray.get(broker.submit.remote(request))
        return ray.get(broker.next.remote(attempt_id), timeout=60)


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    return Pool(tmp_path)


def lost(lines: list[str]) -> list[str]:
    return [
        line.split()[2] for line in lines if line.startswith("warning    worker ") and " was lost: KeyError" in line
    ]


def test_a_worker_that_failed_is_ended_so_that_the_next_one_has_its_place(pool: Pool) -> None:
    with pool.pool as broker:
        assert pool.try_trial(broker).lost
        assert pool.try_trial(broker).lost, "the first worker holds the CPUs"
    assert lost(pool.lines) == ["1", "2"]


def test_a_full_disk_hides_no_lost_worker(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    append, event = Location.append, TrialRequest("a", {}, None, 1, "r=4")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with pool.pool as broker:
        monkeypatch.setattr(Location, "append", full)
        ray.get(broker.replay.remote(event, [{"epoch": 1.0, "score": 0.5, "eval_accuracy": 0.5}]))
        while not any("No space" in line for line in pool.lines):
            time.sleep(0.1)
        assert pool.try_trial(broker).lost
        monkeypatch.setattr(Location, "append", append)
    assert lost(pool.lines) == ["1"]
    assert sum("No space" in line for line in pool.lines) == 1
    (line,) = (pool.folder / "sweep" / "history.jsonl").read_text().splitlines()
    assert json.loads(line)["epoch"] == 1.0
