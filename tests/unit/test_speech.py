"""RAYLORA_LOG=json: every line that train, tune and serve say is a JSON object."""

import json
from datetime import datetime
from typing import Any

import pytest

from raylora.cli.console import Voice
from raylora.cli.main import main


def said(capsys: pytest.CaptureFixture[str], line: str) -> dict[str, Any]:
    voice = Voice("json")
    voice.run = "first"
    voice.say(line)
    return json.loads(capsys.readouterr().out)


def test_a_line_has_time_level_run_and_message(capsys: pytest.CaptureFixture[str]) -> None:
    record = said(capsys, "rows       76 train; 2 labels: ä, b")
    assert datetime.fromisoformat(record.pop("time")).tzinfo is not None
    assert record == {"level": "info", "run": "first", "message": "rows       76 train; 2 labels: ä, b"}
    assert said(capsys, "warning    worker 1 was lost")["level"] == "warning"


def test_a_trials_line_names_it_and_a_count_of_trials_does_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, "trial      3d708_00000  epoch 1  loss 0.7  best 0.7  (r=4)")["trial"] == "3d708_00000"
    assert "trial" not in said(capsys, "trials     8, 8 at once: 1 worker of 2 threads")


def test_an_error_is_one_json_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("RAYLORA_LOG", "json")
    assert main(["train", "lora.rank=8", "lora.r=0"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    record = json.loads(line)
    assert record["level"] == "error" and "lora.rank: unknown key" in record["message"]


def test_another_form_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("RAYLORA_LOG", "xml")
    assert main(["runs"]) == 2
    assert capsys.readouterr().err == "error: RAYLORA_LOG must be text or json, found 'xml'.\n"


@pytest.mark.parametrize(
    ("command", "goes_on"), [("train", True), ("tune", True), ("serve", False), ("predict", False)]
)
def test_an_interrupted_command_says_that_it_goes_on_only_where_it_does(
    command: str, goes_on: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"raylora.cli.{command}.run", interrupted)
    assert main([command, *(["--adapter", "x", "text"] if command == "predict" else [])]) == 130
    assert ("goes on from the last checkpoint" in capsys.readouterr().err) == goes_on
