"""Rows of a table that is scored keep all that their file holds of them; labels are not needed."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from raylora.cluster.data.parts import cut
from raylora.cluster.data.rows import Part, Source
from raylora.cluster.data.sources import sources_of
from raylora.cluster.data.whole import read_chunks
from raylora.cluster.predict.columns import schema_of, table_of, types_of
from raylora.cluster.predict.survey import digest_of, look, types_in
from raylora.config import DataSection
from raylora.config.data import unlabelled
from raylora.errors import DataError

ROWS = [{"id": i, "text": f"text {i}", "far": i / 2} for i in range(30)]
TABLE = pa.Table.from_pylist(ROWS, pa.schema([("id", pa.int16()), ("text", pa.string()), ("far", pa.float32())]))


def write(path: Path) -> Path:
    if path.suffix == ".csv":
        path.write_text("id,text,far\n" + "".join(f"{r['id']},{r['text']},{r['far']}\n" for r in ROWS))
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    elif path.suffix == ".json":
        path.write_text(json.dumps(ROWS))
    elif path.suffix == ".parquet":
        pq.write_table(TABLE, path, row_group_size=7)
    else:
        pyarrow.feather.write_feather(TABLE, str(path), compression="uncompressed", chunksize=7)
    return path


def texts_only(text: str = "text", pair: str | None = None, **changes: Any) -> DataSection:
    return unlabelled(DataSection(**changes), text, pair)


def table_in_parts(source: Source, data: DataSection, part_bytes: int, kept: list[str] | None = None) -> pa.Table:
    parts = cut(source, data, part_bytes)
    schema = schema_of(types_in([look(0, source, part, data, kept) for part in parts]))
    chunks = [chunk.good() for part in parts for chunk in read_chunks(source, data, part, schema.names)]
    return pa.concat_tables([table_of(chunk, schema) for chunk in chunks])


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json", "a.parquet", "a.feather"])
def test_a_table_without_labels_is_read_with_all_its_columns_however_it_is_cut(name: str, tmp_path: Path) -> None:
    data = texts_only()
    (source,) = sources_of(str(write(tmp_path / name)), "test", data)
    whole, in_parts = table_in_parts(source, data, 10**9), table_in_parts(source, data, 60)
    assert whole.equals(in_parts)
    if name == "a.csv":
        assert whole.to_pylist() == [{key: str(value) for key, value in row.items()} for row in ROWS]
    else:
        assert whole.to_pylist() == ROWS
    if name in ("a.parquet", "a.feather"):
        assert whole.schema == TABLE.schema


def test_only_the_columns_that_are_named_are_read(tmp_path: Path) -> None:
    for name in ("a.parquet", "a.jsonl"):
        data = texts_only()
        (source,) = sources_of(str(write(tmp_path / name)), "test", data)
        assert table_in_parts(source, data, 60, ["far"]).column_names == ["far"]


def test_a_folder_of_texts_is_a_table_of_files(tmp_path: Path) -> None:
    for label in ("neg", "pos"):
        (tmp_path / label).mkdir()
        (tmp_path / label / "1.txt").write_text(f"{label} text")
    data = texts_only()
    first, _ = sources_of(str(tmp_path), "test", data)
    assert table_in_parts(first, data, 100).to_pylist() == [{"file": "neg/1.txt", "text": "neg text"}]


def test_no_label_is_looked_for_in_a_text(tmp_path: Path) -> None:
    """As a label this would be a list that was written as text, and the labels of the config would be asked for it."""
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"text": "['a', 'b']", "label": None}) + "\n")
    data = texts_only(labels=["x", "y"], problem_type="single_label_classification")
    (source,) = sources_of(str(path), "test", data)
    piece = look(0, source, Part(), data, None)
    assert (piece.rows, piece.faults) == (1, [])


def test_rows_that_cannot_be_scored_are_known_by_their_places(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,n\ngood,1\n  ,2\nalso good,3\nbroken\n")
    data = texts_only()
    (source,) = sources_of(str(path), "test", data)
    piece = look(0, source, Part(), data, None)
    assert piece.rows == 4
    assert [(place, reason.split(":")[0]) for place, reason in piece.faults] == [
        (3, "'text' is blank"),
        (5, "the header has 2 fields, this row 1"),
    ]
    assert table_in_parts(source, data, 100).column("n").to_pylist() == ["1", "3"]


def test_a_null_text_of_a_table_with_types_takes_its_row_out(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["a", None, "c"], "n": [1, 2, 3]}), path)
    data = texts_only()
    (source,) = sources_of(str(path), "test", data)
    assert look(0, source, Part(), data, None).faults == [(2, "'text' is null")]
    assert table_in_parts(source, data, 100).to_pylist() == [{"text": "a", "n": 1}, {"text": "c", "n": 3}]


def test_a_column_twice_is_refused_as_the_output_could_not_tell_them_apart(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_arrays([pa.array(["a"])] * 3, names=["text", "b", "b"]), path)
    data = texts_only()
    (source,) = sources_of(str(path), "test", data)
    with pytest.raises(DataError, match="has two columns named 'b'"):
        look(0, source, Part(), data, None)
    assert look(0, source, Part(), data, ["text"]).types == {"text": pa.string()}


def test_a_digest_is_of_the_content_wherever_the_file_lies(tmp_path: Path) -> None:
    data = texts_only()
    digests: list[str] = []
    for folder, last in (("a", "same"), ("b", "same"), ("c", "other")):
        (tmp_path / folder).mkdir()
        path = tmp_path / folder / "rows.csv"
        path.write_text(f"text\nfirst\n{last}\n")
        digests += [digest_of(source, data) for source in sources_of(str(path), "test", data)]
    assert digests[0] == digests[1] != digests[2]


def test_types_of_json_are_told_by_all_rows() -> None:
    from raylora.cluster.data.rows import Row
    from raylora.cluster.predict.columns import joined

    def found(*values: Any) -> pa.DataType:
        halves = [types_of([Row(1, record={"x": value})], None) for value in values]
        types: dict[str, pa.DataType] = {}
        for half in halves:
            types = joined(types, half)
        return schema_of(types).field("x").type

    assert found(1, None, 2) == pa.int64()
    assert found(1, 2.5) == pa.float64()
    assert found(1, "a") == found(True, 1) == found({"a": 1}, "a") == found(None) == found(2**70) == pa.string()
    assert found([], ["a"]) == pa.list_(pa.string())
    assert found({"a": 1}, {"a": 2}) == pa.struct([("a", pa.int64())])
