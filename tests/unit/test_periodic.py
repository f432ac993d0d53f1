"""Work that is done again and again ends by no exception."""

import threading
from pathlib import Path

import pytest

from raylora.cluster.events.history import History, parse_history
from raylora.cluster.events.stream import hand_out
from raylora.cluster.periodic import run_every
from raylora.cluster.storage.filesystem import Location
from raylora.cluster.storage.run_folder import HISTORY, RunFolder
from raylora.config import Job


def test_work_that_failed_is_done_again_and_its_failure_is_said_once() -> None:
    said: list[str] = []
    times, tenth = [0], threading.Event()

    def work() -> None:
        times[0] += 1
        if times[0] == 10:
            tenth.set()
        if times[0] == 5:
            raise ValueError("another")
        raise OSError("disk full")

    with run_every(0.001, work, "raylora-test", said.append):
        assert tenth.wait(10)
    assert said == [
        "warning    raylora-test: OSError: disk full; it is tried again",
        "warning    raylora-test: ValueError: another; it is tried again",
    ]


def test_a_terminal_that_is_gone_ends_no_work() -> None:
    third, times = threading.Event(), [0]

    def work() -> None:
        times[0] += 1
        if times[0] == 3:
            third.set()
        raise OSError(f"disk full {times[0]}")

    def say(line: str) -> None:
        raise BrokenPipeError

    with run_every(0.001, work, "raylora-test", say):
        assert third.wait(10)


def test_a_consumer_that_fails_keeps_no_batch_from_the_others() -> None:
    taken: list[int] = []

    def full(events: list[dict[str, int]]) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        hand_out([{"step": 1}], [full, lambda events: taken.append(events[0]["step"])])
    assert taken == [1]


def test_a_disk_that_took_half_a_batch_leaves_every_line_whole_and_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(Job().replace({"storage_path": str(tmp_path), "run_name": "first"}))
    append = Location.append

    def half(file: Location, text: str) -> None:
        append(file, text[: len(text) * 3 // 4])
        raise OSError(28, "No space left on device")

    with History(folder) as history:
        history.add([{"kind": "loss", "step": 0}])
        with monkeypatch.context() as broken:
            broken.setattr(Location, "append", half)
            for steps in ([1, 2], [3]):
                with pytest.raises(Exception, match="No space"):
                    history.add([{"kind": "loss", "step": step} for step in steps])
        history.add([{"kind": "loss", "step": 4}])
        history.add([{"kind": "loss", "step": 5}])
    assert [event["step"] for event in parse_history(folder.read_text(HISTORY))] == [0, 1, 2, 3, 4, 5]
