"""`train.report_to`: what TensorBoard and Weights & Biases hold of a run and of a sweep, read back from them."""

import json
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fsspec
import pytest
from pyarrow.fs import FSSpecHandler, PyFileSystem

from raylora.cli.main import main
from raylora.cluster.events.trackers import follow, installed
from raylora.cluster.events.trackers.follow import Lane, Tracking, tracked
from raylora.cluster.events.trackers.installed import check_trackers
from raylora.cluster.events.trackers.points import values_of
from raylora.cluster.events.trackers.tracker import JOB, Ids
from raylora.cluster.storage import run_folder
from raylora.cluster.storage.filesystem import Location
from raylora.cluster.storage.run_folder import FINISHED, RunFolder
from raylora.config import Job
from raylora.config import file as jobfile
from raylora.errors import ConfigError, TrainingError
from raylora.leaderboard import Trial

Event = dict[str, Any]
METRICS = {"validation": {"accuracy": 0.75, "loss": 0.5, "rows": 20}, "test": None}


def job_of(place: str | Path, *trackers: str) -> Job:
    return Job().replace({"storage_path": str(place), "run_name": "first", "train.report_to": list(trackers)})


def loss(step: int, value: float) -> Event:
    return {"kind": "loss", "step": step, "epoch": step / 10, "loss": value, "learning_rate": 1e-3, "rows_per_s": 99.0}


def evaluation(step: int, accuracy: float) -> Event:
    return {"kind": "evaluation", "step": step, "epoch": step / 10, "eval_accuracy": accuracy, "taken_s": 1.0}


def trial(name: str, epoch: int, accuracy: float) -> Event:
    return {
        "kind": "trial",
        "trial": name,
        "words": "r=4",
        "sample": {"lora.r": 4, "lora.target_modules": ["q"]},
        "step": 10 * epoch,
        "epoch": float(epoch),
        "eval_accuracy": accuracy,
        "score": accuracy,
    }


def failure(name: str) -> Event:
    return {"kind": "failure", "trial": name, "words": "r=4", "sample": {"lora.r": 4}, "failure": "the run diverged"}


def run_once(job: Job, *batches: list[Event], last_step: int = 0, say: Any = print) -> None:
    """A run from its first event to its end, in a folder that holds an adapter by then."""
    folder = RunFolder(job)
    with tracked(job, folder, False, say, last_step) as tracking:
        for batch in batches:
            tracking.add(batch)
        folder.location.inside("adapter/adapter_config.json").write_text("{}")
        folder.write_json(FINISHED, METRICS)
        tracking.finish(folder, METRICS)


def scalars(place: Path) -> dict[str, list[tuple[int, float]]]:
    """As TensorBoard itself reads a folder of event files."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(place))
    read.Reload()
    return {name: [(e.step, round(e.value, 6)) for e in read.Scalars(name)] for name in read.Tags()["scalars"]}


def texts(place: Path) -> dict[str, str]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(place))
    read.Reload()
    tags = read.Tags()["tensors"]
    return {tag: read.Tensors(tag)[-1].tensor_proto.string_val[0].decode() for tag in tags if "text_summary" in tag}


def test_tensorboard_reads_losses_scores_and_settings(tmp_path: Path) -> None:
    run_once(job_of(tmp_path, "tensorboard"), [loss(5, 0.7)], [loss(10, 0.6), evaluation(10, 0.75)])
    found = scalars(tmp_path / "first/tensorboard")
    assert found["train/loss"] == [(5, 0.7), (10, 0.6)]
    assert found["train/epoch"] == [(5, 0.5), (10, 1.0), (10, 1.0)]
    assert found["eval/accuracy"] == [(10, 0.75)]
    assert found["validation/accuracy"] == [(10, 0.75)]
    said = texts(tmp_path / "first/tensorboard")
    assert "| lora.r | 8 |" in said["params/text_summary"] and "serve." not in said["params/text_summary"]
    assert said["outcome/text_summary"] == "finished"


def test_tensorboard_forgets_what_a_killed_attempt_wrote_beyond_its_checkpoint(tmp_path: Path) -> None:
    job = job_of(tmp_path, "tensorboard")
    with pytest.raises(KeyboardInterrupt), tracked(job, RunFolder(job), False, print) as tracking:
        tracking.add([loss(5, 0.7), loss(10, 0.6), loss(15, 0.5)])
        raise KeyboardInterrupt
    time.sleep(1.1)  # event files are ordered by the second in their names
    run_once(job, [loss(15, 0.4)], last_step=10)
    assert scalars(tmp_path / "first/tensorboard")["train/loss"] == [(5, 0.7), (10, 0.6), (15, 0.4)]


def test_a_sweep_has_a_child_for_each_trial_and_a_failed_one_says_why(tmp_path: Path) -> None:
    job = job_of(tmp_path, "tensorboard")
    folder = RunFolder(job)
    with tracked(job, folder, True, print) as tracking:
        tracking.add([trial("a", 1, 0.5), trial("b", 1, 0.6)])
        tracking.add([failure("b"), trial("a", 2, 0.7)])
        folder.location.inside("adapter/adapter_config.json").write_text("{}")
        tracking.finish(folder, METRICS, [Trial("a", {}, "finished"), Trial("b", {}, "failed")])
    place = tmp_path / "first/tensorboard"
    assert scalars(place / "a")["eval/accuracy"] == [(10, 0.5), (20, 0.7)]
    assert texts(place / "a")["outcome/text_summary"] == "finished"
    assert texts(place / "b")["outcome/text_summary"] == "the run diverged"
    assert scalars(place)["validation/accuracy"] == [(20, 0.75)]


def test_event_files_reach_object_storage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    store = PyFileSystem(FSSpecHandler(memory))
    monkeypatch.setattr(run_folder, "locate", lambda address: Location(address, store, "/runs"))
    run_once(job_of("s3://bucket/runs", "tensorboard"), [loss(5, 0.7)])
    memory.get("/runs/first/tensorboard", str(tmp_path / "copy"), recursive=True)
    assert scalars(tmp_path / "copy")["train/loss"] == [(5, 0.7)]


def test_wandb_keeps_its_files_offline_and_goes_on_with_the_same_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    job = job_of(tmp_path, "wandb")
    with pytest.raises(TrainingError), tracked(job, RunFolder(job), False, print) as tracking:
        tracking.add([loss(5, 0.7)])
        raise TrainingError("worker 0 failed: no memory")
    run_once(job, [loss(10, 0.6), evaluation(10, 0.75)])
    id = Ids(RunFolder(job)).get("wandb", JOB)
    first, second = sorted((tmp_path / "first/wandb").glob(f"offline-run-*-{id}/run-{id}.wandb"), key=_age)
    assert _history(first)["train/loss"] == "0.7" and "worker 0 failed: no memory" in str(_summary(first))
    assert _history(second)["eval/accuracy"] == "0.75" and _summary(second)["outcome"] == '"finished"'
    assert b"adapter/adapter_config.json" in second.read_bytes()


def _age(path: Path) -> int:
    return path.stat().st_mtime_ns


def _records(file: Path) -> Sequence[Any]:
    """As `wandb sync` reads the file of an offline run."""
    from wandb.proto.wandb_internal_pb2 import Record
    from wandb.sdk.internal.datastore import DataStore

    store, records = DataStore(), list[Any]()
    store.open_for_scan(str(file))
    while (data := store.scan_data()) is not None:
        record = Record()
        record.ParseFromString(data)
        records.append(record)
    return records


def _history(file: Path) -> dict[str, str]:
    items = [item for record in _records(file) for item in record.history.item]
    return {item.key or "/".join(item.nested_key): item.value_json for item in items}


def _summary(file: Path) -> dict[str, str]:
    items = [item for record in _records(file) for item in record.summary.update]
    return {item.key or "/".join(item.nested_key): item.value_json for item in items}


class Gone:
    """A tracker whose server goes away; `told` is what reached it."""

    takes_files = True

    def __init__(self, after: int) -> None:
        self.after, self.told = after, list[str]()

    def _tell(self, what: str) -> None:
        if len(self.told) == self.after:
            raise ConnectionError("connection refused\nby 127.0.0.1")
        self.told.append(what)

    def begin(self, run: str, params: Any) -> None:
        self._tell("begin")

    def add(self, run: str, points: Any) -> None:
        self._tell("add")

    def flush(self) -> None:
        self._tell("flush")

    def files(self, folder: Path) -> None:
        self._tell("files")

    def end(self, run: str, outcome: Any, reason: Any) -> None:
        self._tell("end")


def test_a_server_that_goes_away_costs_one_warning_and_the_other_tracker_hears_all() -> None:
    said: list[str] = []
    gone, other = Gone(after=2), Gone(after=99)
    tracking = Tracking([Lane("mlflow", lambda: gone, said.append), Lane("other", lambda: other, said.append)])
    tracking.begin(JOB, {})
    for step in range(1, 4):
        tracking.add([loss(step, 0.5)])
    tracking.end(JOB, "finished", None)
    tracking.close(10)
    assert said == [
        "warning    mlflow is told no more, and the job goes on without it: ConnectionError: connection refused"
    ]
    assert other.told == ["begin", *["add", "flush"] * 3, "end"]


def test_a_server_that_hangs_holds_nobody_up() -> None:
    said: list[str] = []
    hangs = threading.Event()

    def make() -> Any:
        hangs.wait(30)

    tracking = Tracking([Lane("mlflow", make, said.append)])
    start = time.monotonic()
    tracking.begin(JOB, {})
    tracking.add([loss(1, 0.5)])
    tracking.close(0.05)
    assert time.monotonic() - start < 5
    assert said == ["warning    mlflow did not take all within 0 s; the rest is in history.jsonl"]
    hangs.set()


def test_a_missing_package_and_a_missing_key_are_named_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="WANDB_API_KEY in the environment, or WANDB_MODE=offline"):
        check_trackers(["wandb"], {})
    check_trackers(["wandb", "tensorboard", "mlflow"], {"WANDB_MODE": "offline"})
    check_trackers(["wandb"], {"WANDB_API_KEY": "x" * 40})
    monkeypatch.setattr(installed, "PACKAGES", {"mlflow": "no_such_package"})
    with pytest.raises(ConfigError, match=r"pip install 'raylora\[mlflow\]'"):
        check_trackers(["mlflow"], {})


def test_one_tracker_needs_no_list_and_none_is_told_twice() -> None:
    assert Job().train.trackers == []
    assert jobfile.read(["train.report_to=mlflow"], {}).train.trackers == ["mlflow"]
    assert jobfile.read(["train.report_to=[wandb, mlflow, wandb]"], {}).train.trackers == ["wandb", "mlflow"]


def test_another_tracker_is_a_fault_of_the_config(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "train.report_to=[comet]", "--dry-run"]) == 2
    assert "train.report_to" in capsys.readouterr().err


def test_what_is_no_number_is_left_out() -> None:
    event = {**loss(5, float("nan")), "grad_norm": None}
    assert values_of(event) == {"train/learning_rate": 1e-3, "train/rows_per_s": 99.0, "train/epoch": 0.5}
    assert values_of({"kind": "checkpoint", "step": 5, "epoch": 0.5, "reason": "save_steps"}) == {}


def test_the_floor_is_shown_beside_the_scores() -> None:
    split = {"tfidf": {"accuracy": 0.5}, "probe": {"accuracy": 0.6}, "rows": 20, "highest": "probe"}
    event = {"kind": "floor", "validation": split, "metric": "accuracy", "train_rows": 80, "seconds": 1.0}
    assert values_of(event) == {"floor/tfidf_accuracy": 0.5, "floor/probe_accuracy": 0.6}


def test_without_trackers_nothing_is_written(tmp_path: Path) -> None:
    run_once(job_of(tmp_path), [loss(5, 0.7)])
    assert sorted(path.name for path in (tmp_path / "first").iterdir()) == ["adapter", FINISHED]
    assert follow.FILES[1] == FINISHED and json.loads((tmp_path / "first" / FINISHED).read_text()) == METRICS
