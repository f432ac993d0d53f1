"""The task of a job's files: taken of their first rows and said; each row's label, or its place and what is wrong."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raylora.cluster.data.labels import decide_task
from raylora.cluster.data.rows import Row
from raylora.cluster.data.sources import list_sources, read_rows
from raylora.config import Job
from raylora.errors import ConfigError

TAGS = [["b", "a"], [], ["a"]]
STARS = [4.5, 1, 3]


def job_of(path: Path, **data: Any) -> Job:
    return Job().replace({"data.train": str(path), **{f"data.{key}": value for key, value in data.items()}})


def written(folder: Path, ending: str, labels: list[Any]) -> Path:
    path = folder / f"rows.{ending}"
    if ending == "parquet":
        pq.write_table(pa.table({"text": [f"text {i}" for i in range(len(labels))], "label": labels}), path)
    elif ending == "csv":
        path.write_text("text,label\n" + "".join(f"text {i},{label}\n" for i, label in enumerate(labels)))
    else:
        path.write_text(
            "".join(json.dumps({"text": f"text {i}", "label": each}) + "\n" for i, each in enumerate(labels))
        )
    return path


def decided(job: Job) -> tuple[Job, list[str]]:
    said: list[str] = []
    return decide_task(job, list_sources(job.data), said.append), said


def rows_of(job: Job) -> list[Row]:
    return [row for source in list_sources(job.data) for row in read_rows(source, job.data)]


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_lists_are_several_labels(tmp_path: Path, ending: str) -> None:
    job, said = decided(job_of(written(tmp_path, ending, TAGS)))
    assert (job.data.problem_type, job.metric) == ("multi_label_classification", "f1_micro")
    assert said == ["task       multi_label_classification, by the labels of the first 3 rows (data.problem_type)"]
    assert [(row.label, row.fault) for row in rows_of(job)] == [('["a", "b"]', None), ("[]", None), ('["a"]', None)]


def test_a_separator_makes_several_labels_of_a_csvs_text(tmp_path: Path) -> None:
    job, said = decided(job_of(written(tmp_path, "csv", ["b|a", "", "a"]), label_separator="|"))
    assert job.data.problem_type == "multi_label_classification" and len(said) == 1
    assert [row.label for row in rows_of(job)] == ['["a", "b"]', "[]", '["a"]']


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_numbers_with_fractions_are_regression(tmp_path: Path, ending: str) -> None:
    labels = [float(star) for star in STARS] if ending == "parquet" else STARS
    job, _ = decided(job_of(written(tmp_path, ending, labels)))
    assert (job.data.problem_type, job.metric) == ("regression", "pearson")
    assert [row.label for row in rows_of(job)] == ["[4.5]", "[1.0]", "[3.0]"]


@pytest.mark.parametrize("labels", [["yes", "no", "yes"], [1, 0, 1]])
def test_all_else_is_one_label_a_row_and_needs_no_words(tmp_path: Path, labels: list[Any]) -> None:
    job, said = decided(job_of(written(tmp_path, "jsonl", labels)))
    assert (job.data.problem_type, job.metric, said) == ("single_label_classification", "accuracy", [])


def test_a_file_without_rows_has_no_say(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\n")
    (tmp_path / "b.csv").write_text("text,label\nfine,4.5\nbad,1.5\n")
    assert decided(job_of(tmp_path))[0].data.problem_type == "regression"


def folder_of(folder: Path, *files: list[Any], ending: str = "jsonl") -> Path:
    for i, labels in enumerate(files):
        written(folder, ending, labels).rename(folder / f"{i:03}.{ending}")
    return folder


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_numbers_with_fractions_in_a_later_file_are_seen(tmp_path: Path, ending: str) -> None:
    job, said = decided(job_of(folder_of(tmp_path, [1, 2], [], [4.5, 1], ending=ending)))
    assert job.data.problem_type == "regression"
    assert said == ["task       regression, by the labels of the first 4 rows of 2 files (data.problem_type)"]


def test_lists_in_the_last_of_many_files_are_seen(tmp_path: Path) -> None:
    job, _ = decided(job_of(folder_of(tmp_path, *[["a", "b"]] * 60, [["a"], ["b"]])))
    assert job.data.problem_type == "multi_label_classification"
    (bad, *_), good = [[row.fault for row in read_rows(s, job.data)] for s in list_sources(job.data)[-2:]]
    assert good == [None, None] and bad is not None and "must be a list of labels, found the text 'a'" in bad


@pytest.mark.parametrize("files", [1, 3, 60])
def test_a_thousand_rows_are_looked_at_of_any_number_of_files(tmp_path: Path, files: int) -> None:
    _, said = decided(job_of(folder_of(tmp_path, *[[0.5] * 1100] * files)))
    of = "" if files == 1 else f" of {min(files, 50)} files"
    rows = {1: "1,000", 3: "999", 60: "1,000"}[files]
    assert said == [f"task       regression, by the labels of the first {rows} rows{of} (data.problem_type)"]


def test_numbers_that_the_config_names_as_labels_are_labels(tmp_path: Path) -> None:
    job, said = decided(job_of(written(tmp_path, "csv", [0.5, 1, 0.5]), labels=["0.5", "1"]))
    assert (job.data.problem_type, said) == ("single_label_classification", [])
    assert [(row.label, row.fault) for row in rows_of(job)] == [("0.5", None), ("1", None), ("0.5", None)]


def test_numbers_named_by_years_stay_numbers(tmp_path: Path) -> None:
    job, _ = decided(job_of(written(tmp_path, "jsonl", [[0.5, 1.5], [2, 3]]), labels=["2024", "2025"]))
    assert job.data.problem_type == "regression"


def test_what_the_job_says_is_not_asked_of_the_rows(tmp_path: Path) -> None:
    job, said = decided(job_of(written(tmp_path, "csv", [1, 2, 3]), problem_type="regression"))
    assert (job.data.problem_type, said) == ("regression", [])


def test_what_the_task_has_not_is_told_at_once(tmp_path: Path) -> None:
    job = job_of(written(tmp_path, "csv", STARS))
    with pytest.raises(ConfigError, match=r"must be a metric of regression .*, found accuracy"):
        decided(job.replace({"train.metric_for_best_model": "accuracy"}))
    with pytest.raises(ConfigError, match="is of labels, and regression has none"):
        decided(job.replace({"train.class_weights": "balanced"}))


@pytest.mark.parametrize(
    ("kind", "labels", "words"),
    [
        ("multi_label_classification", [["a"], "a"], "must be a list of labels, found the text 'a'"),
        ("multi_label_classification", [["a"], None], "is null; a row without labels holds an empty list"),
        ("regression", [1.5, "good"], "must be a finite number, found 'good'"),
        ("regression", [1.5, None], "is null"),
    ],
)
def test_a_bad_label_is_named_with_its_line(tmp_path: Path, kind: str, labels: list[Any], words: str) -> None:
    job = job_of(written(tmp_path, "jsonl", labels), problem_type=kind)
    first, second = rows_of(job)
    assert first.fault is None
    assert second.fault is not None and words in second.fault
    assert list_sources(job.data)[0].place(second.place) == f"{tmp_path / 'rows.jsonl'}, line 2"
