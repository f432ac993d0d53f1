"""history.jsonl: appended where storage can, written whole but seldom where not, and whole after any kill."""

import json
from pathlib import Path
from typing import Any

import fsspec
import pytest
from pyarrow.fs import FSSpecHandler, PyFileSystem

from raylora.cluster.events.history import History, earlier_events, parse_history
from raylora.cluster.events.stream import event_line
from raylora.cluster.storage import run_folder
from raylora.cluster.storage.filesystem import Location
from raylora.cluster.storage.run_folder import HISTORY, RunFolder
from raylora.cluster.tune.events import SweepEvents
from raylora.config import Job

Event = dict[str, Any]


class ObjectStore(FSSpecHandler):
    """As pyarrow's S3: a file is written whole or not at all. `writes` are its sizes."""

    writes: list[int]

    def open_append_stream(self, path: str, metadata: Any) -> Any:
        raise NotImplementedError("It is not possible to append efficiently to S3 objects")

    def move(self, src: str, dest: str) -> None:
        super().move(src, dest)
        self.writes.append(self.fs.size(dest))


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(Job().replace({"storage_path": str(tmp_path), "run_name": "first"}))


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    handler = ObjectStore(memory)
    handler.writes = []
    monkeypatch.setattr(run_folder, "locate", lambda address: Location(address, PyFileSystem(handler), "/runs"))
    return handler


def loss(step: int) -> Event:
    return {"kind": "loss", "step": step, "epoch": step / 10, "loss": 1 / step}


def evaluation(step: int) -> Event:
    return {"kind": "evaluation", "step": step, "epoch": step / 10, "eval_loss": 1 / step}


def report(trial: str, epoch: int, score: float, **more: Any) -> Event:
    return {"kind": "trial", "trial": trial, "words": "r=4", "epoch": epoch, "eval_loss": score, "score": score, **more}


def text(folder: RunFolder) -> str:
    return folder.read_text(HISTORY)


def test_each_batch_adds_its_own_bytes_and_no_more(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    appended: list[str] = []
    append = Location.append
    monkeypatch.setattr(Location, "append", lambda file, text: (appended.append(text), append(file, text))[1])
    monkeypatch.setattr(Location, "write_text", None)
    with History(folder) as history:
        for step in range(1, 101):
            history.add([loss(step), loss(step)])
            assert parse_history(text(folder))[-1]["step"] == step, "readers see each batch at once"
        history.add([])
    assert [len(batch.splitlines()) for batch in appended] == [2] * 100
    assert "".join(appended) == text(folder)


def test_going_on_keeps_what_was_up_to_the_checkpoint_and_writes_once_only_where_that_drops_something(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with History(folder) as history:
        history.add([{"kind": "model"}, loss(5), evaluation(10), loss(15)])
    written: list[str] = []
    write = Location.write_text
    monkeypatch.setattr(Location, "write_text", lambda file, text: (written.append(text), write(file, text))[1])
    assert len(earlier_events(folder, lambda event: event.get("step", 0) <= 15)) == 4 and written == []
    assert len(earlier_events(folder, lambda event: event.get("step", 0) <= 10)) == 3 and len(written) == 1
    with History(folder) as history:
        history.add([loss(12)])
    assert [event.get("step") for event in parse_history(text(folder))] == [None, 5, 10, 12]


@pytest.mark.parametrize("cut", [1, 5, 30])
def test_a_last_line_that_was_cut_is_passed_over_and_then_mended(folder: RunFolder, cut: int) -> None:
    with History(folder) as history:
        history.add([loss(1), loss(2)])
    Path(folder.path, HISTORY).write_text(text(folder)[:-cut])
    whole = 2 if cut == 1 else 1  # only its line break is lost
    assert [event["step"] for event in parse_history(text(folder))] == [1, 2][:whole]
    assert len(earlier_events(folder)) == whole
    with History(folder) as history:
        history.add([loss(3)])
    assert [json.loads(line)["step"] for line in text(folder).splitlines()] == [*[1, 2][:whole], 3]


def test_a_line_that_is_broken_elsewhere_is_an_error() -> None:
    with pytest.raises(ValueError):
        parse_history('{"kind": "lo\n{"kind": "loss"}\n')


def test_an_object_store_gets_the_file_whole_at_evaluations_seldom_for_losses_and_at_the_end(
    store: ObjectStore, folder_there: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("raylora.cluster.events.history.monotonic", lambda: now[0])
    with History(folder_there) as history:
        for step in range(1, 8):
            history.add([loss(step)])
        assert len(store.writes) == 1, "the first, then none for a while"
        now[0] = 1
        history.add([evaluation(8)])
        assert len(store.writes) == 2 and len(parse_history(text(folder_there))) == 8
        history.add([loss(9)])
        now[0] = 31
        history.add([loss(10)])
        assert len(store.writes) == 3
        history.add([loss(11)])
    assert len(store.writes) == 4
    assert [event["step"] for event in parse_history(text(folder_there))] == list(range(1, 12))
    with History(folder_there) as history:
        history.add([evaluation(12)])
    assert [event["step"] for event in parse_history(text(folder_there))] == list(range(1, 13))


@pytest.fixture
def folder_there(store: ObjectStore) -> RunFolder:
    return RunFolder(Job().replace({"storage_path": "x://runs", "run_name": "first"}))


def test_a_batch_that_could_not_be_written_comes_with_the_next(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with History(folder) as history:
        with monkeypatch.context() as broken:
            broken.setattr(Location, "append", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
            with pytest.raises(Exception, match="disk full"):
                history.add([loss(1)])
        history.add([loss(2)])
    assert [event["step"] for event in parse_history(text(folder))] == [1, 2]


SWEEP = Job().replace({"train.metric_for_best_model": "loss"})


def test_a_sweep_that_goes_on_tells_and_keeps_what_a_kill_left_out(folder: RunFolder) -> None:
    said: list[str] = []
    SweepEvents(SWEEP, folder, said.append).add([report("a", 1, 0.9), report("a", 2, 0.8)])
    events = SweepEvents(SWEEP, folder, said.append)
    events.add([report("a", epoch, 1 - epoch / 10, again=True) for epoch in (1, 2, 3)])
    assert [line.split()[3] for line in said] == ["1", "2", "3"]
    assert [event["epoch"] for event in parse_history(text(folder))] == [1, 2, 3]
    assert not any("again" in event for event in parse_history(text(folder)))


@pytest.mark.parametrize("wanted", ["mse", ["mse", "trainable_parameters"]])
def test_a_trial_is_told_by_the_metric_of_the_sweep_and_its_best_by_the_same(wanted: Any, folder: RunFolder) -> None:
    """As a sweep has decided: the epochs' own metric is the task's first."""
    numbers = {"data.problem_type": "regression", "train.metric_for_best_model": "pearson"}
    job = Job().replace(numbers | {"tune.metric": wanted, "tune.scheduler": "none"})
    said: list[str] = []
    SweepEvents(job, folder, said.append).add(
        [report("a", 1, 0.5) | {"eval_mse": 2.5, "eval_pearson": 0.1, "score": 2}]
    )
    assert said == ["trial      a  epoch 1  mse 2.5000  best 2.0000  (r=4)"]


def test_records_of_a_sweep_without_a_kind_are_those_of_older_versions(folder: RunFolder) -> None:
    old = {"trial": "a", "words": "r=4", "failure": None, "epoch": 1, "eval_loss": 0.9, "score": 0.9}
    folder.write_text(HISTORY, json.dumps(old) + "\n")
    said: list[str] = []
    SweepEvents(SWEEP, folder, said.append).add([report("a", 1, 0.9, again=True), report("a", 2, 0.8)])
    assert len(said) == 1 and len(text(folder).splitlines()) == 2


def test_a_failure_is_told_and_kept_once(folder: RunFolder) -> None:
    said: list[str] = []
    failure = {"kind": "failure", "trial": "a", "words": "r=4", "failure": "the run diverged"}
    events = SweepEvents(SWEEP, folder, said.append)
    events.add([failure])
    events.add([failure])
    assert said == ["trial      a  failed: the run diverged  (r=4)"]
    assert parse_history(text(folder)) == [failure]


def test_every_kind_has_its_line_but_losses() -> None:
    assert event_line(loss(1)) is None
    assert event_line(report("a", 2, 0.25), "loss") == "trial      a  epoch 2  loss 0.2500  best 0.2500  (r=4)"


def test_a_long_epoch_says_how_far_it_is() -> None:
    event = {"kind": "progress", "step": 30, "steps": 1500, "epoch": 0.06, "rows_per_s": 1204.4, "left_s": 118.0}
    assert event_line(event) == "step       30 of 1,500 (2%), epoch 0.06, 1,204 rows/s, about 1 min 58 s left"
