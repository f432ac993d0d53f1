"""`raylora inspect` on small dirty files, as a user runs it."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import run

from raylora.cli.main import main

pytestmark = pytest.mark.e2e

# eleven rows can be used; "fine" is there twice with one label, "odd" with two
TRAIN = """\
id,stars,review
1,good,fine
2,good,fine
3,good,odd
4,bad,odd
5,bad,quite bad
6,Good,very fine
7,bad,очень плохо
8,good,\u200b
9,good,"so long, so long, so long, so long, so long"
10,good,
11,,text without a label
12,good,one,too many
13,bad,very bad
14,Good,well
15,good,caf\udce9
"""
TEST = "id,stars,review\n1,good,fine\n2,bad,new\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.csv").write_bytes(TRAIN.encode("utf-8", "surrogateescape"))
    (tmp_path / "data" / "test.csv").write_text(TEST)
    return tmp_path


def inspected(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["inspect", "--json", *words]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_dirty_folder_is_told_split_by_split(
    folder: Path, bases: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    base = f"model.base_model={bases('bert')}"
    found = inspected(capsys, "data", base, "data.label_column=stars", "data.text_column=review", "data.max_length=12")
    assert found["used"] == {"text": "review", "label": "stars"}
    assert found["columns"] == ["id", "stars", "review"]
    train, test = found["splits"]["train"], found["splits"]["test"]
    assert (train["rows"], train["bad_rows"], train["empty"]) == (15, 4, 1)
    assert sum(train["reasons"].values()) == 4
    assert train["first_bad"][0] == f"{folder}/data/train.csv, line 11: 'review' is blank"
    assert train["labels"]["counts"] == {"bad": 4, "good": 5, "Good": 2}
    assert (train["duplicates"], train["conflicts"]) == (1, 1)
    assert train["scripts"] == {"Latin": 9, "Cyrillic": 1, "no letters": 1}
    assert (train["tokens"]["cut"], train["tokens"]["none"]) == (1, 1)
    assert (test["rows"], test["in_train"], test["bad_rows"]) == (2, 1, 0)
    codes = [warning["code"] for warning in found["warnings"]]
    assert codes == ["D001", "D002", "D003", "D004", "D005", "D006", "D009", "D010", "D012"]
    assert found["refused"] is None


def test_a_config_is_inspected_as_it_would_be_trained_and_mutes_codes(
    folder: Path, bases: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "job.yaml").write_text(
        f"model: {{base_model: {bases('bert')}}}\n"
        "data: {train: data/train.csv, text_column: review, label_column: stars, mute: [D001, D006]}\n"
    )
    found = inspected(capsys, "job.yaml", "data.max_length=64")
    assert list(found["splits"]) == ["train"]
    assert [warning["code"] for warning in found["warnings"]] == ["D002", "D003", "D009", "D010", "D012"]


def test_what_a_run_would_refuse_is_told_with_the_report_and_exit_code_2(
    folder: Path, bases: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "one.csv").write_text("text,label\na,x\nb,x\nc,y\n")
    assert main(["inspect", "one.csv", f"model.base_model={bases('bert')}"]) == 2
    told = capsys.readouterr()
    assert "  labels   2: x 2 (66.7 %), y 1 (33.3 %)\n" in told.out
    assert told.err.startswith("error: label 'y' has 1 row; a split needs two different texts")


@pytest.mark.parametrize(
    ("labels", "word", "shown", "message"),
    [
        ([0.5, 1.5], "train.metric_for_best_model=accuracy", "task       regression", "must be a metric of regression"),
        (
            [0.5, 1.5],
            "train.class_weights=balanced",
            "min 0.5, mean 1, max 1.5",
            "is of labels, and regression has none",
        ),
        ("ab", "data.positive_label=c", "2: a 4 (50 %), b 4 (50 %)", "must be one of two labels, found 'c'"),
        (
            "ab",
            "train.class_weights={c: 2}",
            "2: a 4 (50 %), b 4 (50 %)",
            "names 'c', which is not a label of the data",
        ),
        ("aa", "data.validation_fraction=0.5", "1: a 8 (100 %)", "all 8 rows carry one label, 'a'"),
    ],
)
def test_settings_that_the_labels_do_not_bear_are_told_after_the_report(
    labels: Any,
    word: str,
    shown: str,
    message: str,
    folder: Path,
    bases: Callable[[str], Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = "".join(f"text {i},{labels[i % 2]}\n" for i in range(8))
    (folder / "rows.csv").write_text(f"text,label\n{rows}")
    assert main(["inspect", "rows.csv", word, f"model.base_model={bases('bert')}"]) == 2
    told = capsys.readouterr()
    assert "train      8 rows in 1 file" in told.out and shown in told.out
    assert told.err.startswith("error: ") and message in told.err


def test_a_file_of_which_no_row_can_be_used_is_told_with_its_reasons(
    folder: Path, bases: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "none.csv").write_text("text,label\na,\nb,\n")
    words = ["none.csv", "data.text_column=text", "data.label_column=label", f"model.base_model={bases('bert')}"]
    assert main(["inspect", *words]) == 2
    told = capsys.readouterr()
    assert "2 of 2 train rows cannot be used: 'label' is blank (2)" in told.out
    assert told.err == "error: no usable row is left in `data.train`.\n"


def test_rows_that_are_no_json_are_told_like_any_other(
    folder: Path, bases: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [json.dumps({"text": f"text {i}", "label": "ab"[i % 2]}) for i in range(8)]
    (folder / "rows.jsonl").write_text("\n".join([*rows, '{"text": "no end']))
    found = inspected(capsys, "data.train=rows.jsonl", f"model.base_model={bases('bert')}")
    assert (found["splits"]["train"]["bad_rows"], found["splits"]["train"]["rows"]) == (1, 9)
    assert found["splits"]["train"]["first_bad"][0].startswith(f"{folder}/rows.jsonl, line 9: not JSON: ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["gone.csv"], "gone.csv is not there"),
        (["gone.yaml"], "config file gone.yaml is not there"),
        (["data", "data"], "takes one address of data, found data, data"),
        (["data", "data.mute=[D004, d5]"], "'d5', which is no code"),
        (["data", "data.text_column=txt"], "has no column 'txt'"),
    ],
)
def test_a_mistake_is_one_clear_error(
    folder: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error


def test_a_program_reads_the_lines_as_json(folder: Path, bases: Callable[[str], Path]) -> None:
    words = ("data", "data.label_column=stars", f"model.base_model={bases('bert')}")
    said = run("raylora", "inspect", *words, cwd=folder, environ={**os.environ, "RAYLORA_LOG": "json"})
    assert said.returncode == 0, said.stderr
    records = [json.loads(line) for line in said.stdout.splitlines()]
    assert records[0]["message"] == "task       single_label_classification"
    assert records[1]["message"] == "columns    text 'review', label 'stars'; not used: id"
    assert {record["level"] for record in records if " D0" in record["message"]} == {"warning"}
