"""JSON in its forms, parquet, Arrow and feather: awkward values come whole, and a bad one is a fault of its row."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from datafiles import ROWS, pairs, read_path

from raylora.cluster.data.guess import read_columns
from raylora.cluster.data.parts import cut
from raylora.cluster.data.sources import list_sources, read_rows
from raylora.config import DataSection
from raylora.errors import DataError

TEXTS, LABELS = [text for text, _ in ROWS], [label for _, label in ROWS]
TABLE = pa.table({"id": range(len(ROWS)), "text": TEXTS, "label": LABELS})


def save(path: Path, value: Any) -> Path:
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


# ---- JSON


@pytest.mark.parametrize(
    "value",
    [
        [{"text": text, "label": label, "more": {"x": []}} for text, label in ROWS],
        {"version": "1.0", "data": [{"text": text, "label": label} for text, label in ROWS]},
        {"text": TEXTS, "label": LABELS},
        {"text": TEXTS, "label": LABELS, "name": "reviews"},
        {"columns": ["label", "text"], "index": [3], "data": [[label, text] for text, label in ROWS]},
        {name: {str(7 + i): value for i, value in enumerate(column)} for name, column in
         (("text", TEXTS), ("label", LABELS))},
    ],
    ids=["list", "data", "columns", "columns and more", "split", "by row"],
)  # fmt: skip
def test_json_holds_its_rows_in_many_forms(tmp_path: Path, value: Any) -> None:
    path = save(tmp_path / "a.json", value)
    rows = read_path(path)
    assert pairs(rows) == ROWS
    assert [row.place for row in rows] == list(range(1, len(ROWS) + 1))
    if "name" not in value:  # whether what is no list belongs to it is known from the columns' names alone
        assert read_columns(str(path))["text"] == TEXTS


@pytest.mark.parametrize("orient", ["records", "split", "columns", "table"])
def test_json_as_pandas_writes_it_is_read(tmp_path: Path, orient: Any) -> None:
    pd.DataFrame({"text": TEXTS, "label": LABELS}).to_json(tmp_path / "a.json", orient=orient)
    assert pairs(read_path(tmp_path / "a.json")) == ROWS


def test_json_with_an_object_per_line_is_read_by_lines_whatever_its_ending(tmp_path: Path) -> None:
    """As Spark writes it."""
    lines = "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in ROWS)
    path = save(tmp_path / "part-00000.json", lines + "broken\n")
    *good, bad = read_path(path)
    assert pairs(good) == ROWS
    assert bad.place == len(ROWS) + 1
    assert list_sources(DataSection(train=str(path)))[0].place(3).endswith("part-00000.json, line 3")
    assert pairs(read_path(save(tmp_path / "part-00001.json", lines.split("\n")[0]))) == ROWS[:1], "of one row"


def test_lists_are_rows_where_the_config_names_their_columns(tmp_path: Path) -> None:
    lines = '["x", "a text"]\n["y", "another", 1]\n{"label": "z", "text": "third"}\n'
    for name, content in (("a.jsonl", lines), ("a.json", f"[{','.join(lines.split(chr(10))[:-1])}]")):
        path = save(tmp_path / name, content)
        first, bad, last = read_path(path, columns=["label", "text"])
        assert pairs([first, last]) == [("a text", "x"), ("third", "z")]
        assert bad.fault == "`data.columns` names 2 fields, this row 3"
    path = save(tmp_path / "b.jsonl", '["x", "a text"]\n["y", "another"]\n')
    assert pairs(read_path(path, text_column="1", label_column="0")) == [("a text", "x"), ("another", "y")]


def test_a_bad_value_in_a_column_of_json_is_a_fault_of_its_row(tmp_path: Path) -> None:
    path = save(tmp_path / "a.json", {"text": ["a", None, 5, "", "b"], "label": [1, 1, 1, 1, None]})
    assert [(row.place, row.fault) for row in read_path(path)] == [
        (1, None),
        (2, "'text' is null"),
        (3, "'text' must be text, found int '5'"),
        (4, "'text' is blank"),
        (5, "'label' is null"),
    ]


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"text": ["a", "b"], "label": ["x"]}, r"columns of different lengths: 'text' 2, 'label' 1\. Each row"),
        ({"text": ["a"], "labels": ["x"]}, r"must hold a list of objects, found dict with 'text', 'labels'\. Or"),
        ({}, r"found dict with no key\. Or"),
        ("3", r"must hold a list of objects, found int\. Or"),
        ({"data": []}, "holds no rows"),
    ],
)
def test_json_that_holds_no_rows_says_what_it_must_hold(tmp_path: Path, value: Any, told: str) -> None:
    with pytest.raises(DataError, match=told):
        read_path(save(tmp_path / "a.json", value))


def test_json_objects_beside_data_are_data_where_they_hold_rows(tmp_path: Path) -> None:
    save(tmp_path / "a.json", {"data": [{"text": "a", "label": "x"}]})
    save(tmp_path / "b.json", {"text": ["b"], "label": ["y"]})
    save(tmp_path / "dataset_info.json", {"features": {"text": {"dtype": "string"}}, "splits": {"train": {}}})
    save(tmp_path / "dataset_infos.json", {"default": {"features": {"text": {}}}})
    save(tmp_path / "tokenizer.json", {"version": 1, "vocab": {"a": 1}, "merges": ["a b"]})
    assert pairs(read_path(tmp_path)) == [("a", "x"), ("b", "y")]


# ---- Arrow, feather, parquet


def write_arrow(path: Path, table: pa.Table, kind: str, rows_a_batch: int = 5) -> Path:
    if kind == "feather":
        pa.feather.write_feather(table, str(path), chunksize=rows_a_batch)
        return path
    opened = pa.ipc.new_file if kind == "file" else pa.ipc.new_stream
    with pa.OSFile(str(path), "wb") as sink, opened(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=rows_a_batch)
    return path


KINDS = [("a.arrow", "file"), ("a.arrow", "stream"), ("a.feather", "feather")]


@pytest.mark.parametrize(("name", "kind"), KINDS)
def test_arrow_is_read_whole_and_in_parts(tmp_path: Path, name: str, kind: str) -> None:
    path = write_arrow(tmp_path / name, TABLE, kind)
    rows = read_path(path)
    assert pairs(rows) == ROWS
    assert [row.place for row in rows] == list(range(1, len(ROWS) + 1))
    section = DataSection(train=str(path))
    (source,) = list_sources(section)
    for part_bytes in (1, 300, 10**6):
        parts = cut(source, section, part_bytes)
        assert [row for part in parts for row in read_rows(source, section, part)] == rows
        assert len(parts) == (1 if kind == "stream" or part_bytes > 300 else len(parts))
    assert len(cut(source, section, 1)) == (1 if kind == "stream" else 3)
    assert read_columns(str(path))["text"][:5] == TEXTS[:5]


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_feather_compresses_its_buffers(tmp_path: Path, compression: Any) -> None:
    pa.feather.write_feather(TABLE, str(tmp_path / "a.feather"), compression=compression)
    assert pairs(read_path(tmp_path / "a.feather")) == ROWS


@pytest.mark.parametrize(
    "texts",
    [
        pa.array(TEXTS, pa.large_string()),
        pa.array(TEXTS, pa.string_view()),
        pa.array([text.encode() for text in TEXTS]),
        pa.array(TEXTS).dictionary_encode(),
    ],
    ids=["large", "view", "binary", "dictionary"],
)
@pytest.mark.parametrize(("name", "kind"), [*KINDS, ("a.parquet", "parquet")])
def test_texts_of_any_arrow_type_are_read(tmp_path: Path, texts: pa.Array, name: str, kind: str) -> None:
    table = pa.table({"text": texts, "label": LABELS})
    if kind == "parquet":
        pq.write_table(table, tmp_path / name)
    elif kind == "feather":
        pa.feather.write_feather(table, str(tmp_path / name))
    else:
        write_arrow(tmp_path / name, table, kind, 100)
    assert pairs(read_path(tmp_path / name)) == ROWS


@pytest.mark.parametrize(("name", "kind"), [*KINDS, ("a.parquet", "parquet")])
def test_a_string_that_is_not_utf8_is_a_fault_of_its_row(tmp_path: Path, name: str, kind: str) -> None:
    """Arrow does not check what writers claim."""
    texts = pa.array([b"good", b"caf\xe9", b"last"]).view(pa.string())
    table = pa.table({"text": texts, "label": ["x", "y", "z"]})
    pq.write_table(table, tmp_path / name) if kind == "parquet" else write_arrow(tmp_path / name, table, kind)
    first, bad, last = read_path(tmp_path / name)
    assert pairs([first, last]) == [("good", "x"), ("last", "z")]
    assert (bad.fault or "").startswith("'text' is not UTF-8: byte 0xe9 at character 3. Set data.encoding=cp1252")


@pytest.mark.parametrize(("name", "kind"), KINDS)
@pytest.mark.parametrize("how", ["cut", "garbled", "empty", "text"])
def test_a_broken_arrow_file_is_one_clear_error(tmp_path: Path, name: str, kind: str, how: str) -> None:
    table = pa.table({"text": ["some text"] * 1000, "label": ["x"] * 1000})
    path = write_arrow(tmp_path / name, table, kind, 100)
    content = path.read_bytes()
    broken = {
        "cut": content[: len(content) // 3],
        "garbled": content[:8] + b"\xff" * 400 + content[408:],
        "empty": b"",
        "text": b"text,label\na,x\n",
    }
    path.write_bytes(broken[how])
    with pytest.raises(DataError, match=r"a\.(arrow|feather) is (not readable as arrow: |empty)"):
        read_path(path)


def test_columns_that_arrow_lacks_are_named(tmp_path: Path) -> None:
    path = write_arrow(tmp_path / "a.arrow", pa.table({"text": ["a"], "y": [1]}), "stream")
    with pytest.raises(DataError, match=r"a\.arrow has no column 'label'\. Columns found: 'text', 'y'\. Set"):
        read_path(path)


def test_an_empty_arrow_file_holds_no_rows(tmp_path: Path) -> None:
    path = write_arrow(tmp_path / "a.arrow", pa.table({"text": pa.array([], pa.string()), "label": []}), "file")
    with pytest.raises(DataError, match="holds no rows"):
        read_path(path)
