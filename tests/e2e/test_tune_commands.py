"""The tune command as a user types it: bad input, the default sweep's shape, trials of several workers, refit."""

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import run

import raylora

pytestmark = pytest.mark.e2e

Bases = Callable[[str], Path]
Write = Callable[[int], str]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tune.space.lora.rank={choice: [4]}"], "tune.space.lora.rank: unknown key; known here: r, lora_alpha"),
        (["tune.num_sample=4"], "tune.num_sample: unknown key; did you mean `tune.num_samples`?"),
        (["tune.metric=loss", "tune.mode=max"], "`mode` must be min for loss, found max"),
        (["tune.scheduler=pbt"], "tune.space.lora.r: cannot change during a trial"),
        (["data.train=gone.csv"], "gone.csv is not there"),
    ],
)
def test_a_bad_command_line_exits_with_2_and_a_message(words: list[str], message: str) -> None:
    done = run("jobs/tune.py", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_dry_run_prints_the_whole_sweep() -> None:
    done = run("jobs/tune.py", "tune.num_samples=3", "--dry-run")
    assert done.returncode == 0
    assert "  num_samples: 3\n" in done.stdout


@pytest.mark.slow
def test_trials_of_two_workers_report_every_epoch_and_the_winner_is_refitted(
    bases: Bases, reviews_file: Write, tmp_path: Path
) -> None:
    data = reviews_file(94)
    words = [
        "jobs/tune.py",
        f"data.train={data}",
        f"data.test={data}",
        f"model.base_model={bases('bert')}",
        f"storage_path={tmp_path}",
        "run_name=two",
        "ray.num_workers=2",
        "ray.max_failures=1",
        "tune.num_samples=1",
        "tune.metric=loss",
        "train.calibrate=false",
        "tune.refit=true",
        "tune.scheduler=none",
        "tune.space={train.learning_rate: {grid: [0.01, 0.003, 1e30]}}",
        "train.num_train_epochs=2",
    ]
    done = run(*words, timeout_s=400)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = list(csv.DictReader((tmp_path / "two" / "trials.csv").open(encoding="utf-8")))
    assert [(row["status"], row["epochs"]) for row in rows] == [("finished", "2")] * 2 + [("failed", "0")]
    told = re.findall(r"^trial      (\S+)  (epoch \d|failed)", done.stdout, re.M)
    ended = [row["trial"] for row in rows]
    assert sorted(told) == sorted([(t, f"epoch {e}") for t in ended[:2] for e in (1, 2)] + [(ended[2], "failed")])
    history = [json.loads(line) for line in (tmp_path / "two" / "history.jsonl").read_text().splitlines()]
    assert sorted(event["kind"] for event in history) == ["failure"] + ["trial"] * 4
    metrics = json.loads((tmp_path / "two" / "metrics.json").read_text())
    assert metrics["validation"]["loss"] == pytest.approx(float(rows[0]["score"]), abs=1e-4)
    manifest = raylora.load(tmp_path / "two" / "adapter").manifest
    assert set(manifest.metrics) == {"test"}, "a refitted adapter has seen the validation rows"
    assert manifest.metrics["test"]["rows"] == 94
    forget_reports(tmp_path / "two")
    again = run(*words, timeout_s=400)
    assert again.returncode == 0, again.stdout + again.stderr
    assert list(csv.DictReader((tmp_path / "two" / "trials.csv").open(encoding="utf-8"))) == rows


def forget_reports(folder: Path) -> None:
    """As a kill leaves a sweep one of whose trials had ended, and of which Ray Tune's state knew no report yet."""
    (folder / "metrics.json").unlink()
    (path,) = (folder / "trials").glob("experiment_state-*.json")
    tree = json.loads(path.read_text())
    state, known = map(json.loads, tree["trial_data"][0])
    back = {**state, "status": "RUNNING"}, {**known, "last_result": {}}
    tree["trial_data"][0] = [json.dumps(part) for part in back]
    path.write_text(json.dumps(tree))
