"""`raylora inspect RUN`: which labels may be wrong, as a user asks."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny import tiny_job

from raylora.cli.main import main
from raylora.config.file import dump

pytestmark = pytest.mark.e2e

Bases = Callable[[str], Path]


@pytest.fixture
def run_folder(tmp_path: Path, bases: Bases) -> Path:
    """Of 80 rows whose label a word tells, but for two; one text is there under either label."""
    rows = [{"text": f"{'good' if i % 2 else 'bad'} story number {i}", "label": "ny"[i % 2]} for i in range(80)]
    rows += [{"text": "the same story", "label": "y"}, {"text": "the same story", "label": "n"}]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings: dict[str, Any] = {
        "data.train": str(tmp_path / "train.jsonl"),
        "data.problem_type": "single_label_classification",
        "train.metric_for_best_model": "accuracy",
    }
    folder = tmp_path / "runs" / "mine"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(dump(tiny_job(bases("bert")).replace(settings)))
    return folder


def test_a_run_is_reviewed_and_its_review_leaves_rows_out(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(run_folder), "--folds", "3"]) == 0
    said = capsys.readouterr().out
    assert "train, in 3 folds" in said
    review = run_folder / "review.csv"
    assert f"data.exclude={review}" in said
    found = list(csv.DictReader(review.open(encoding="utf-8")))
    assert list(found[0]) == ["reason", "quality", "label", "suggested", "text", "place", "near"]
    assert {row["reason"] for row in found} <= {"label", "near duplicate", "outlier"}
    same = [row for row in found if row["text"] == "the same story"]
    assert same, "one of the two is always in train's files; both are in one split"
    assert {row["label"] for row in same} <= {"n", "y"}
    assert all(f"{run_folder.parent.parent}/train.jsonl, line " in row["place"] for row in found)

    assert main(["inspect", str(run_folder)]) == 2
    assert "is there already, perhaps with your marks: name another by --output" in capsys.readouterr().err


def test_as_json_with_as_many_rows_as_are_asked_for(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = run_folder.parent / "other.csv"
    assert main(["inspect", str(run_folder), "--json", "--folds", "2", "--most", "2", "--output", str(output)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["suspects"]) <= 2
    assert found["rows"] > 60
    assert set(found["found"]) == {"label", "near duplicate", "outlier"}
    assert len(list(csv.DictReader(output.open(encoding="utf-8")))) == len(found["suspects"])


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--folds", "1"], "--folds must be 2 or more"),
        (["--most", "0"], "--most 1 or more"),
        (["data.max_length=3"], "takes the run's folder alone"),
        (["--folds", "50"], "50 folds need 100 different texts in train, or more"),
    ],
)
def test_what_cannot_be_asked_of_a_run_is_refused(
    words: list[str], reason: str, run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(run_folder), *words]) == 2
    assert reason in capsys.readouterr().err
    assert not (run_folder / "review.csv").exists()
