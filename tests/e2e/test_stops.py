"""Ctrl-C and SIGTERM end a command in words, with the usual exit code, and the same command goes on."""

import json
import signal
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import ROOT, command, run

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "stopped")]
)
@pytest.mark.parametrize("kind", ["train", "tune"])
def test_a_signal_ends_a_command_that_then_goes_on(
    kind: str, number: int, code: int, word: str, bases: Callable[[str], Path], tmp_path: Path
) -> None:
    words = [
        f"jobs/{kind}.py",
        f"model.base_model={bases('bert')}",
        f"storage_path={tmp_path}",
        "run_name=cut",
        "data.max_samples=100",
        "train.num_train_epochs=40",
        "tune.num_samples=2",
        "tune.scheduler=none",
    ]
    process = subprocess.Popen(
        command(words), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    with process:
        assert process.stdout
        lines: list[str] = []
        for line in process.stdout:
            lines.append(line)
            if "epoch 12 " in line:  # Ray keeps a checkpoint in mind some two seconds after it is there
                break
        process.send_signal(number)
        lines += process.stdout.readlines()
    assert process.returncode == code, "".join(lines)
    said = lines[-1]
    assert said == f"{word}: the same command with the same run_name goes on from the last checkpoint.\n", lines
    again = run(*words, timeout_s=300)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "\nresuming   " in again.stdout
    history = [json.loads(line) for line in (tmp_path / "cut" / "history.jsonl").read_text().splitlines()]
    told = [(item.get("trial"), round(item["epoch"])) for item in history if "eval_loss" in item]
    epochs = Counter(trial for trial, _ in set(told))
    assert list(epochs.values()) == [40] * (1 if kind == "train" else 2), "each epoch"
    assert kind == "tune" or len(told) == 40, "what a run trains again is told once"
