"""What is written of a scored table: columns, values and formats."""

import csv
import io
import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raylora.cluster.data.rows import Row
from raylora.cluster.data.whole import WholeRows
from raylora.cluster.predict.columns import KINDS, check_free, table_of
from raylora.cluster.predict.formats import writer_of
from raylora.errors import ConfigError
from raylora.tasks import Learned, Wish, task_of

TABLE = pa.table(
    {
        "text": pa.array(["a\nb", 'say "hi", ö', None]),
        "n": pa.array([1, None, 3], pa.int8()),
        "x": pa.array([0.1, float("nan"), float("inf")]),
        "day": pa.array([datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), None, None], pa.timestamp("us", "UTC")),
        "cost": pa.array([Decimal("1.50"), None, None]),
        "raw": pa.array([b"a\xff", None, b""], pa.binary()),
        "tags": pa.array([["a", "b"], [], None]),
        "ok": pa.array([True, False, None]),
    }
)


def written(kind: Any, table: pa.Table = TABLE) -> bytes:
    file = io.BytesIO()
    writer = writer_of(kind, file, table.schema)
    for start in range(0, table.num_rows, 2):
        writer.write(table.slice(start, 2))
    writer.close()
    return file.getvalue()


def test_parquet_keeps_values_and_types() -> None:
    table = TABLE.drop_columns("x")  # nan is not equal to itself
    assert pq.read_table(io.BytesIO(written("parquet", table))).equals(table)


def test_jsonl_is_json_that_any_reader_takes() -> None:
    rows = [json.loads(line, parse_constant=pytest.fail) for line in written("jsonl").decode().splitlines()]
    assert rows[0] == {
        "text": "a\nb",
        "n": 1,
        "x": 0.1,
        "day": "2026-01-02T03:04:05+00:00",
        "cost": 1.5,
        "raw": "a\\xff",
        "tags": ["a", "b"],
        "ok": True,
    }
    assert rows[1]["x"] is rows[2]["x"] is rows[2]["tags"] is rows[1]["n"] is None
    assert rows[1]["tags"] == []


def test_a_csv_has_nothing_for_null_and_json_for_lists() -> None:
    header, *rows = csv.reader(io.StringIO(written("csv").decode(), newline=""))
    assert header == TABLE.column_names
    assert rows[0] == ["a\nb", "1", "0.1", "2026-01-02T03:04:05+00:00", "1.5", "a\\xff", '["a", "b"]', "true"]
    assert rows[2] == ["", "3", "", "", "", "", "", ""]


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "csv"])
def test_the_same_rows_are_the_same_bytes(kind: str) -> None:
    assert written(kind) == written(kind)


def test_values_of_mixed_kinds_are_text_each_in_json() -> None:
    values = [1, "a", None, [1, {"b": None}], 0.5, True, "lone \ud83d"]
    chunk = WholeRows([Row(i, record={"x": value}) for i, value in enumerate(values)])
    table = table_of(chunk, pa.schema([("x", pa.string())]))
    found = table.column("x").to_pylist()
    assert found == ["1", "a", None, '[1, {"b": null}]', "0.5", "true", "lone \\ud83d"]


def test_a_column_that_a_file_lacks_is_null_there() -> None:
    schema = pa.schema([("x", pa.int64()), ("y", pa.string())])
    by_record = table_of(WholeRows([Row(1, record={"x": 1})]), schema)
    by_batch = table_of(WholeRows([Row(1)], pa.RecordBatch.from_pydict({"x": pa.array([1], pa.int8())})), schema)
    assert by_record.to_pylist() == by_batch.to_pylist() == [{"x": 1, "y": None}]
    assert by_record.schema == by_batch.schema == schema


def test_a_column_of_the_data_that_is_named_as_a_prediction_is_an_error_with_two_ways_out() -> None:
    data = pa.schema([("id", pa.int64()), ("label", pa.string())])
    with pytest.raises(ConfigError, match=r"also have: 'label'.*predict.prefix=predicted_.*predict.columns=\[id\]"):
        check_free(data, ["label", "score"], "")
    check_free(data, ["predicted_label", "predicted_score"], "predicted_")


def columns_of(kind: str, labels: tuple[str, ...], logits: list[list[float]], every: bool, **wish: Any) -> Any:
    task = task_of(kind)  # pyright: ignore[reportArgumentType]
    learned = Learned(labels, min_scores={"0.9": {"score": 0.7, "coverage": 0.5, "rows": 9, "error": 0.1}})
    found = task.answers(np.array(logits, np.float32), learned, Wish(**wish))
    names = task.fields(labels, every)
    cells = [task.cells(each, labels, every) for each in found]
    for row in cells:
        for cell, field in zip(row, names.values(), strict=True):
            pa.array([cell], KINDS[field])
    return [dict(zip(names, row, strict=True)) for row in cells], [task.counted(each) for each in found]


def test_one_label_a_row_is_a_label_and_a_score_or_null_below_the_accuracy() -> None:
    logits = [[0.0, 2.0], [0.5, 0.0]]
    rows, counted = columns_of("single_label_classification", ("a", "b"), logits, True, min_accuracy=0.9)
    assert [row["label"] for row in rows] == ["b", None]
    assert list(rows[0]) == ["label", "score", "score_a", "score_b"]
    assert rows[0]["score"] == rows[0]["score_b"] == pytest.approx(0.8808, abs=1e-4)
    assert rows[0]["score_a"] == pytest.approx(0.1192, abs=1e-4)
    assert counted == [("b",), (None,)]


def test_several_labels_a_row_are_a_list_of_those_decided() -> None:
    logits = [[1.0, 3.0, -1.0], [-1.0, -2.0, -3.0]]
    rows, counted = columns_of("multi_label_classification", ("a", "b", "c"), logits, False)
    assert [(row["label"], row["labels"]) for row in rows] == [("b", ["b", "a"]), (None, [])]
    assert list(rows[0]) == ["label", "labels", "score"]
    assert counted == [("b", "a"), (None,)]


def test_numbers_are_values_by_their_names_where_there_are_several() -> None:
    one, counted = columns_of("regression", ("stars",), [[4.5]], True)
    several, _ = columns_of("regression", ("a", "b"), [[1.0, 2.0]], False)
    assert (one, several) == ([{"value": 4.5}], [{"value_a": 1.0, "value_b": 2.0}])
    assert counted == [()]
