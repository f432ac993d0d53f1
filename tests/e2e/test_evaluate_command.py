"""`raylora evaluate` as a user types it: what it says, what it leaves, and how it exits."""

import csv
import json
from pathlib import Path

import pytest
from commands import run

from raylora.cli.main import main

pytestmark = pytest.mark.e2e


def test_a_run_is_evaluated_written_and_held_to_its_gates(
    old_folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["run", "--slice-by", "label", "--output", "out", "--fail-under", "accuracy=0.5"]
    assert main(["evaluate", *words, "--fail-over", "loss=0.6"]) == 3
    said = capsys.readouterr()
    assert said.err == "error: 1 gate not met:\n  run: loss is 0.6966, --fail-over loss=0.6 asks for at most 0.6\n"
    lines = said.out.splitlines()
    assert lines[0] == f"rows       24 of test ({old_folders / 'reviews.jsonl'})"
    assert lines[1] == "adapter    run (base), 24 rows"
    assert any(line.split()[:2] == ["accuracy", "0.5000"] for line in lines)
    assert any(line.startswith("slices     1 worse than the rest (Fisher's exact test") for line in lines)
    assert lines[-1] == f"written    {old_folders / 'out'}"
    with (old_folders / "out" / "slices.csv").open(encoding="utf-8") as file:
        worse = [(row["by"], row["slice"], row["value"]) for row in csv.DictReader(file) if row["worse"] == "True"]
    assert worse == [("label", "positive", "0.0")]
    assert {path.name for path in (old_folders / "out").iterdir()} >= {"per_class.csv", "confusion.csv", "metrics.csv"}


def test_json_is_all_of_stdout(old_folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "run", "--json", "--fail-under", "accuracy=0.5"]) == 0
    said = capsys.readouterr()
    (adapter,) = json.loads(said.out)["adapters"]
    assert (adapter["rows"], adapter["metrics"]["accuracy"]["value"]) == (24, 0.5)
    assert said.err.startswith("rows       24 of test")


def test_the_job_is_the_command_and_refuses_a_wrong_gate_before_it_loads_a_model(old_folders: Path) -> None:
    done = run("jobs/evaluate.py", "gone", "--fail-under", "loss=1", cwd=old_folders)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: `loss` is better the lower it is: write --fail-over loss=1.\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "--fail-over", "mse=1"], "`mse` is not known of single_label_classification"),
        (["gone"], "gone is not there"),
        (["run", "run"], "named twice"),
        (["run", "--data", "gone.csv"], "gone.csv is not there"),
        (["run", "--slice-by", "source"], "no row of"),
        (["run", "data.label_column=stars"], "'stars' is missing"),
        (["run", "lora.r=2"], "`lora.r` is not evaluate's to set"),
        (["run", "--output", "base"], "holds what no evaluation wrote (config.json"),
    ],
)
def test_a_mistake_is_one_error_and_exit_code_2(
    words: list[str], message: str, old_folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", *words]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("error: ") and message in said.err
    assert "Traceback" not in said.err and said.out == ""
