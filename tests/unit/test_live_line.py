"""How far an epoch is: a line that is drawn over on a terminal, one a minute elsewhere, nothing in the history."""

import os
import pty
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from raylora.cli.console import OnTerminal, Voice, say_as
from raylora.cluster.events.stream import Pace, event_line, tell_lines
from raylora.cluster.storage.run_folder import HISTORY, RunFolder
from raylora.cluster.tune.events import SweepEvents
from raylora.cluster.tune.pulse import Pulse, Underway, of_one_trial
from raylora.config import Job
from raylora.records import LiveSay

Event = dict[str, Any]


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def progress(worker: str, trials: int, share: float, rows_per_s: float, left_s: float) -> Event:
    return {
        "kind": "progress",
        "worker": worker,
        "trials": trials,
        "share": share,
        "rows_per_s": rows_per_s,
        "left_s": left_s,
    }


def test_a_log_gets_one_line_a_minute_and_none_just_after_another_line() -> None:
    clock, said = Clock(), list[str]()
    pace = Pace(said.append, clock)
    for clock.now in range(0, 150, 2):
        pace.tell(f"at {clock.now}")
    assert said == ["at 60", "at 120"]
    clock.now = 179.0
    pace.wait()  # an epoch's own line was said
    for clock.now in (200, 238, 239):
        pace.tell(f"at {clock.now}")
    assert said == ["at 60", "at 120", "at 239"]


def test_a_python_caller_is_not_told_every_two_seconds() -> None:
    said: list[str] = []
    event = {"kind": "progress", "step": 1, "steps": 9, "epoch": 0.1, "rows_per_s": 5.0, "left_s": 8.0}
    tell_lines(said.append)([event, event])
    assert said == []


def test_on_a_terminal_the_line_is_drawn_over_and_the_next_one_takes_its_place(
    capsys: pytest.CaptureFixture[str],
) -> None:
    say = OnTerminal(Voice("text"))
    say.live("step 10 of 20")
    say.live("step 9")
    say("epoch 1")
    assert capsys.readouterr().out == "\rstep 10 of 20\rstep 9       \r      \repoch 1\n"


def test_a_live_line_is_never_wider_than_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    OnTerminal(Voice("text")).live("x" * 100)
    assert capsys.readouterr().out == "\r" + "x" * 39


def test_an_error_takes_the_place_of_the_live_line(capsys: pytest.CaptureFixture[str]) -> None:
    voice = Voice("text")
    voice.live("step 10")
    voice.fail("error", "the disk is full", "error: the disk is full")
    assert capsys.readouterr() == ("\rstep 10\r       \r", "error: the disk is full\n")


@pytest.mark.parametrize(
    ("form", "on_terminal", "live"), [("text", True, True), ("json", True, False), ("text", False, False)]
)
def test_only_a_terminal_that_people_read_has_a_live_line(
    form: str, on_terminal: bool, live: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, out = pty.openpty() if on_terminal else os.pipe()
    monkeypatch.setattr(sys, "stdout", os.fdopen(out, "w"))
    assert isinstance(say_as(Namespace(voice=Voice(form)), Job()), LiveSay) == live


def test_a_pack_tells_how_far_it_is_every_two_seconds_but_not_at_its_end() -> None:
    clock, told = Clock(), list[Event]()
    pulse = Pulse(told.append, trials=8, rows=100, clock=clock)
    for clock.now, share in ((1.0, 0.1), (2.0, 0.2), (3.0, 0.3), (4.0, 0.5), (10.0, 1.0)):
        pulse(share)
    assert told == [
        {"trials": 8, "share": 0.2, "rows_per_s": 80.0, "left_s": 8.0},
        {"trials": 8, "share": 0.5, "rows_per_s": 100.0, "left_s": 4.0},
    ]


def test_a_trial_alone_tells_its_epoch_and_no_loss() -> None:
    told: list[Event] = []
    log = of_one_trial(told.append)
    log({"kind": "loss", "loss": 1.0})
    log({"kind": "progress", "epoch": 2.25, "rows_per_s": 9.0, "left_s": 70.0, "epoch_left_s": 7.0})
    assert told == [{"trials": 1, "rows_per_s": 9.0, "share": 0.25, "left_s": 7.0}]


def test_workers_are_told_in_one_line_and_one_that_is_silent_is_left_out() -> None:
    clock = Clock()
    underway = Underway(clock)
    underway.ended = "; 4 of 16 trials ended"
    (one,) = underway.of([progress("worker 1", 6, 0.5, 900, 40), progress("worker 2", 2, 0.1, 150, 70)])
    assert event_line(one) == (
        "step       8 trials at 40% of an epoch, 1,050 rows/s, about 1 min 10 s left of it; 4 of 16 trials ended"
    )
    clock.now = 11.0
    (other,) = underway.of([progress("worker 2", 1, 0.2, 150, 60)])
    assert event_line(other) == (
        "step       1 trial at 20% of an epoch, 150 rows/s, about 1 min 00 s left of it; 4 of 16 trials ended"
    )
    assert underway.of([]) == []


def test_a_sweeps_history_holds_no_progress(tmp_path: Path) -> None:
    job = Job().replace({"storage_path": str(tmp_path), "run_name": "first", "tune.metric": "loss"})
    folder = RunFolder(job)
    SweepEvents(job, folder, lambda line: None).add([progress("worker 1", 6, 0.5, 900, 40)])
    assert not folder.has(HISTORY)
