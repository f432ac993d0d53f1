"""Rows from a Python program: the checks and messages of a file, and a bad row is named by its number."""

import datetime
import io
import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from datafiles import ROWS, pairs, rows_of

from raylora.cluster.data.frames import of_split, save, splits_of
from raylora.cluster.data.rows import Row
from raylora.cluster.data.sources import list_sources
from raylora.cluster.storage.filesystem import locate
from raylora.config import DataSection
from raylora.errors import DataError

TEXTS, LABELS = [text for text, _ in ROWS], [label for _, label in ROWS]
COLUMNS = {"id": list(range(len(ROWS))), "text": TEXTS, "label": LABELS}
Read = Callable[..., list[Row]]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Rows of what a program holds, by the way of its file."""

    def rows(data: Any, **section: Any) -> list[Row]:
        address = save(data, locate(str(tmp_path / "data")), "train", DataSection(**section))
        found = DataSection(train=address, **section)
        return [row for source in list_sources(found) for row in rows_of(source, found)]

    return rows


def polars(columns: dict[str, Any], lazy: bool = False) -> Any:
    library = pytest.importorskip("polars")
    frame = library.DataFrame(columns)
    return frame.lazy() if lazy else frame


def datasets(columns: dict[str, Any]) -> Any:
    import datasets

    return datasets.Dataset.from_dict(columns)


def parquet_file(columns: dict[str, Any]) -> pq.ParquetFile:
    stream = io.BytesIO()
    pq.write_table(pa.table(columns), stream)
    return pq.ParquetFile(stream)


MAKE: dict[str, Callable[[dict[str, Any]], Any]] = {
    "pandas": pd.DataFrame,
    "pandas of Arrow": lambda columns: pa.table(columns).to_pandas(types_mapper=pd.ArrowDtype),
    "pyarrow": pa.table,
    "record batch": pa.RecordBatch.from_pydict,
    "reader": lambda columns: pa.table(columns).to_reader(5),
    "polars": polars,
    "lazy polars": lambda columns: polars(columns, lazy=True),
    "datasets": datasets,
    "dicts": lambda columns: pa.table(columns).to_pylist(),
    "pyarrow dataset": lambda columns: pyarrow.dataset.dataset(pa.table(columns)),
    "parquet file": parquet_file,
    "generator": lambda columns: iter(pa.table(columns).to_pylist()),
    "columns": dict,
}


@pytest.mark.parametrize("kind", MAKE)
def test_rows_of_every_kind_come_whole_and_in_order(read: Read, kind: str) -> None:
    rows = read(MAKE[kind](COLUMNS))
    assert pairs(rows) == ROWS
    assert [row.place for row in rows] == list(range(1, len(ROWS) + 1))


@pytest.mark.parametrize("kind", [kind for kind in MAKE if kind not in ("dicts", "generator")])
def test_a_column_that_is_not_there_is_named_with_those_that_are(read: Read, kind: str) -> None:
    with pytest.raises(
        DataError, match=r"the .+ has no column 'text'\. Columns found: 'review', 'label'\. Set `data\.tex"
    ):
        read(MAKE[kind]({"review": ["a"], "label": ["x"]}))


@pytest.mark.parametrize("kind", MAKE)
def test_what_is_missing_is_a_fault_of_its_row(read: Read, kind: str) -> None:
    rows = read(MAKE[kind]({"text": ["a", None, " ", "b"], "label": ["x", "y", "z", None]}))
    assert [(row.place, row.fault) for row in rows] == [
        (1, None),
        (2, "'text' is null"),
        (3, "'text' is blank"),
        (4, "'label' is null"),
    ]


def test_a_column_of_pandas_may_hold_anything(read: Read) -> None:
    odd = [
        5,
        float("nan"),
        pd.NA,
        pd.NaT,
        {"en": "a"},
        datetime.date(2026, 1, 2),
        Decimal("1.5"),
        "\ud83d",
        b"caf\xe9",
        "ok",
    ]
    rows = read(pd.DataFrame({"text": pd.Series(odd, dtype=object), "label": [np.int64(1)] * len(odd)}))
    assert [(row.fault or "").split(". Set")[0] for row in rows] == [
        "'text' must be text, found int '5'",
        "'text' is null",
        "'text' is null",
        "'text' is null",
        "'text' must be text, found dict \"{'en': 'a'}\"",
        "'text' must be text, found dict \"{'date': '2026-01-02'}\"",
        "'text' must be text, found float '1.5'",
        "'text' is not UTF-8: lone surrogate \\ud83d at character 0",
        "'text' is not UTF-8: byte 0xe9 at character 3",
        "",
    ]


def test_decimals_of_a_database_are_the_numbers_of_a_file(read: Read) -> None:
    labels = [Decimal("2.00"), Decimal("3.25"), Decimal("1e999999999")]
    rows = read(pd.DataFrame({"text": ["a", "b", "c"], "label": labels}))
    assert [row.value for row in rows[:2]] == [2, 3.25] and rows[2].fault


def test_labels_of_numpy_and_categories_are_the_labels_of_a_file(read: Read) -> None:
    for labels, expected in (
        (np.array([0, 1]), ["0", "1"]),
        (pd.Series([1.0, 2.0]), ["1", "2"]),
        (pd.Categorical(["x", "y"]), ["x", "y"]),
        (pd.array([1, 2], dtype="Int64"), ["1", "2"]),
        (pd.array([True, False], dtype="boolean"), ["true", "false"]),
    ):
        assert [row.label for row in read(pd.DataFrame({"text": ["a", "b"], "label": labels}))] == expected


def test_a_set_is_several_labels_in_the_order_of_any_process(read: Read) -> None:
    data = {"text": ["a", "b"], "label": [{"y", "x", "z"}, frozenset[str]()]}
    rows = read(data, problem_type="multi_label_classification")
    assert [(row.label, row.value) for row in rows] == [('["x", "y", "z"]', ["x", "y", "z"]), ("[]", [])]


@pytest.mark.parametrize("make", [dict, pd.DataFrame, pa.table, datasets])
def test_decimals_are_numbers(read: Read, make: Callable[[dict[str, Any]], Any]) -> None:
    labels = [Decimal("4.5"), Decimal("3.0"), Decimal("12345678901234567890")]
    halves = {"text": ["a", "b"], "label": labels[:2]}
    assert [row.label for row in read(make(halves), problem_type="regression")] == ["[4.5]", "[3.0]"]
    whole = {"text": ["a", "b"], "label": labels[1:]}
    assert [row.label for row in read(make(whole))] == ["3", "12345678901234567890"]


def test_what_no_json_can_hold_is_the_fault_of_its_row_alone(read: Read) -> None:
    odd = [{(1, 2): 3}, 10**5000, "x"]
    for data in (
        {"text": ["a", "b", "c"], "label": odd},
        [{"text": "a", "label": odd[0]}, {("text",): "b"}, {"text": "c", "label": "x"}],
    ):
        *faulty, good = read(data)
        assert pairs([good]) == [("c", "x")]
        assert all(row.fault and row.fault.startswith("'") for row in faulty)


@pytest.mark.parametrize("data", [{"text": "ab", "label": "xy"}, {"text": 1, "label": 2}, {"text": iter("ab")}])
def test_a_column_that_is_no_list_of_values_is_refused(read: Read, data: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"column 'text' of the dict is a \w+\. Pass a list, a value a row\."):
        read({"label": ["x", "y"], **data})


def test_columns_of_pandas_that_are_numbered_are_named_by_their_numbers(read: Read) -> None:
    rows = read(pd.DataFrame([["x", "a text"], ["y", "b"]]), text_column="1", label_column="0")
    assert pairs(rows) == [("a text", "x"), ("b", "y")]


def test_class_labels_carry_their_names(read: Read) -> None:
    import datasets

    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    dataset = datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": [1, 0, -1]}, features=features)
    stream = dataset.to_iterable_dataset()
    for data in (dataset, dataset.data.table, dataset.filter(lambda row: True), stream, stream.shuffle(0).take(3)):
        rows = read(data)
        assert sorted((row.text, row.label, row.fault) for row in rows) == [
            ("", "", "'label' is null"),
            ("a", "yes", None),
            ("b", "no", None),
        ]
    assert [row.label for row in read(dataset, labels=["0", "1"])[:2]] == ["1", "0"]
    assert pairs(read(dataset.select([1, 0]))) == [("b", "no"), ("a", "yes")]


def test_dicts_that_lack_a_key_and_what_is_no_dict_are_faults(read: Read) -> None:
    first, lacks, listed = read([{"text": "a", "label": 1, "more": object()}, {"text": "b", "lable": 1}, ["c", 1]])
    assert pairs([first]) == [("a", "1")]
    assert lacks.fault == "'label' is missing; keys found: 'text', 'lable'"
    assert listed.fault == "must be an object, found list"


def test_pairs_are_taken_from_frames(read: Read) -> None:
    (row,) = read(pd.DataFrame({"a": ["x"], "b": ["y"], "label": [1]}), text_column="a", text_pair_column="b")
    assert (row.text, row.text_pair) == ("x", "y")


@pytest.mark.parametrize("data", [3, object(), {1, 2}.__len__, pd.DataFrame({"text": []}).groupby("text")])
def test_what_holds_no_rows_is_refused(read: Read, data: Any) -> None:
    with pytest.raises(
        DataError, match=r"rows cannot be taken from a .+\. Pass a path, a table of pandas|has no column"
    ):
        read(data)


def test_columns_of_different_lengths_are_refused(read: Read) -> None:
    with pytest.raises(DataError, match=r"the columns of the dict are of different lengths"):
        read({"text": ["a", "b"], "label": [1]})


def test_a_frame_without_rows_holds_none(read: Read) -> None:
    with pytest.raises(DataError, match="holds no rows"):
        read(pd.DataFrame({"text": [], "label": []}))


def test_the_same_rows_are_written_once(tmp_path: Path) -> None:
    place = locate(str(tmp_path / "data"))
    first, again = (save(pd.DataFrame(COLUMNS), place, "train", DataSection()) for _ in range(2))
    other = save(pd.DataFrame(COLUMNS), place, "test", DataSection())
    assert first == again != other
    assert len(list((tmp_path / "data").iterdir())) == 2
    assert json.loads(Path(first).read_text(encoding="utf-8-sig").splitlines()[0]) == {"text": "plain", "label": "a"}


def test_declared_encodings_are_of_other_files(read: Read) -> None:
    assert pairs(read(pd.DataFrame(COLUMNS), encoding="utf-16")) == ROWS


def test_a_dataset_dict_holds_its_splits_by_key() -> None:
    import datasets

    train, dev = datasets.Dataset.from_dict({"text": ["a"]}), datasets.Dataset.from_dict({"text": ["b"]})
    assert splits_of(datasets.DatasetDict({"train": train, "dev": dev})) == {"train": train, "validation": dev}
    assert splits_of({"train": [1]}) is None
    with pytest.raises(DataError, match=r"the datasets\.DatasetDict has the keys all, none that names a split"):
        splits_of(datasets.DatasetDict({"all": train}))


def test_a_dataset_dict_for_a_split_is_its_rows_of_that_split() -> None:
    import datasets

    train, dev = datasets.Dataset.from_dict({"text": ["a"]}), datasets.Dataset.from_dict({"text": ["b"]})
    for held in (datasets.DatasetDict({"train": train, "dev": dev}), datasets.IterableDatasetDict({"dev": dev})):
        assert of_split(held, "validation") is dev
        with pytest.raises(DataError, match=r"DatasetDict has the keys .*dev, none that names test\."):
            of_split(held, "test")
    assert of_split(dev, "test") is dev


def test_a_stream_that_does_not_know_its_columns_is_read_row_by_row(read: Read) -> None:
    import datasets

    stream = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}).to_iterable_dataset()
    assert pairs(read(stream.map(lambda row: {"text": row["text"] * 2}))) == [("aa", "1"), ("bb", "0")]
