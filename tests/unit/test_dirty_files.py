"""Random dirty files: nothing but DataErrors, and every row that is written is read, as a good one or a bad one.

RAYLORA_FUZZ is the number of files (60); `pytest -m slow` reads 20,000.
"""

import bz2
import csv
import gzip
import io
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raylora.cluster.data.guess import write_config
from raylora.cluster.data.parts import cut
from raylora.cluster.data.rows import Row
from raylora.cluster.data.sources import list_sources, read_rows
from raylora.config import DataSection
from raylora.errors import DataError

FILES = int(os.environ.get("RAYLORA_FUZZ", "60"))
MANY = max(FILES, 20_000)
ODD = [
    '"',
    ",",
    ";",
    "\t",
    "|",
    "\n",
    "\r",
    "\r\n",
    "\\",
    "'",
    "\0",
    "\ufeff",
    "é",
    "😀",
    "\u2028",
    "\x85",
    "{",
    "[",
    " ",
    "",
]

pieces = st.one_of(st.sampled_from(ODD), st.text(max_size=6))
texts = st.lists(pieces, max_size=5).map("".join)
values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-3, 3), st.floats(), texts),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(texts, inner, max_size=2)),
    max_leaves=3,
)
records = st.one_of(
    st.fixed_dictionaries({"text": texts, "label": texts}),
    st.fixed_dictionaries({"text": values, "label": values}),
    st.dictionaries(st.sampled_from(["text", "label", "id"]), values, max_size=3),
)
sections = st.fixed_dictionaries(
    {},
    optional={
        "delimiter": st.sampled_from([",", ";", "tab", "::", "§"]),
        "quoting": st.sampled_from(["doubled", "backslash", "none"]),
        "decimal": st.just(","),
        "encoding": st.sampled_from(["cp1252", "utf-16", "gb18030", "ascii"]),
        "columns": st.sampled_from([["text", "label"], ["label", "text", "more"]]),
        "labels": st.just(["a", "b"]),
    },
).filter(lambda data: not (data.get("delimiter") == "§" and data.get("encoding") == "ascii"))  # the config refuses it


def fuzz(examples: int) -> Any:
    return settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
    )


def read_in_every_way(path: Path, data: dict[str, Any]) -> list[Row] | None:
    """The rows, whole and in parts alike; None of a file that is refused, by a DataError."""
    section = DataSection(train=str(path), **data)
    try:
        (source,) = list_sources(section)
        rows = list(read_rows(source, section))
    except DataError:
        return None
    for part_bytes in (1, 37):
        parts = cut(source, section, part_bytes)
        assert [row for part in parts for row in read_rows(source, section, part)] == rows
    for row in rows:
        assert row.fault or (row.text.strip() and row.label)
        source.place(row.place)
    return rows


def guess(path: Path) -> None:
    output = path.with_suffix(".yaml")
    output.unlink(missing_ok=True)
    try:
        write_config(str(path), str(output))
    except DataError:
        return


# ---- bytes that are anything


ENDINGS = [".csv", ".tsv", ".txt", ".jsonl", ".json", ".parquet", ".arrow", ".feather"]
PACKED = ["", "", "", ".gz", ".bz2", ".zst", ".zip"]
BEGINNINGS = [
    *[b"", b"", b"text,label\n", b'{"text": "a", "label": "b"}\n', b"[", b"PAR1", b"ARROW1\0\0", b"\xff\xff\xff\xff"],
    *[b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf", b"\x1f\x8b\x08", b"BZh9", b"PK\x03\x04", b"\x28\xb5\x2f\xfd"],
]
garbage = st.builds(
    lambda begin, parts, end: begin + b"".join(parts) + end,
    st.sampled_from(BEGINNINGS),
    st.lists(st.one_of(st.binary(max_size=20), texts.map(lambda t: t.encode("utf-8", "surrogatepass"))), max_size=8),
    st.sampled_from([b"", b"PAR1", b"ARROW1", b"\n", b"]"]),
)
PACK = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".zst": lambda content: pa.compress(content, codec="zstd", asbytes=True),
}


def check_garbage(
    tmp_path_factory: pytest.TempPathFactory,
    content: bytes,
    ending: str,
    packed: str,
    is_packed: bool,
    data: dict[str, Any],
) -> None:
    path = tmp_path_factory.getbasetemp() / f"a{ending}{packed}"
    path.write_bytes(PACK[packed](content) if is_packed and packed in PACK else content)
    read_in_every_way(path, data)
    guess(path)
    path.unlink()


GARBAGE = (garbage, st.sampled_from(ENDINGS), st.sampled_from(PACKED), st.booleans(), sections)


test_any_bytes_are_rows_or_a_data_error = fuzz(FILES)(given(*GARBAGE)(check_garbage))
test_thousands_of_files_of_any_bytes_are_rows_or_data_errors = pytest.mark.slow(
    fuzz(MANY // 2)(given(*GARBAGE)(check_garbage))
)


# ---- rows of which some are bad


def as_lines(rows: list[Any]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def as_csv(rows: list[Any]) -> bytes:
    """As Python's csv module writes cells; what is no text is written as its JSON."""
    stream = io.StringIO()
    writer = csv.writer(stream, quoting=csv.QUOTE_ALL)
    writer.writerow(["text", "label"])
    for row in rows:
        writer.writerow([v if isinstance(v, str) else json.dumps(v) for v in (row.get("text"), row.get("label"))])
    return stream.getvalue().encode("utf-8", "surrogatepass")


def as_table(rows: list[Any], kind: str) -> bytes | None:
    """None where the values are of no common type."""
    stream = io.BytesIO()
    try:
        columns = {name: [row.get(name) for row in rows] for name in ("text", "label")}
        table = pa.table(columns)
        if kind == "parquet":
            pq.write_table(table, stream, row_group_size=2)
        else:
            pa.feather.write_feather(table, stream, chunksize=2)
    except (pa.ArrowException, ValueError, TypeError, OverflowError):
        return None
    return stream.getvalue()


def check_rows(tmp_path_factory: pytest.TempPathFactory, rows: list[Any], kind: str, packed: str) -> None:
    """Good rows and bad rows are all rows; the good ones are those whose text and label can be used."""
    content = {
        "jsonl": lambda: as_lines(rows),
        "json": lambda: json.dumps(rows).encode(),
        "csv": lambda: as_csv(rows),
        "parquet": lambda: as_table(rows, "parquet"),
        "feather": lambda: as_table(rows, "feather"),
    }[kind]()
    if content is None:
        return
    path = tmp_path_factory.getbasetemp() / f"a.{kind}{packed}"
    path.write_bytes(PACK[packed](content) if packed else content)
    found = read_in_every_way(path, {})
    path.unlink()
    if found is None:
        assert not rows or kind in ("parquet", "feather"), "a table whose column is all null may be of no type"
        return
    good = [row for row in found if row.fault is None]
    bad = [row for row in found if row.fault is not None]
    assert len(good) + len(bad) == len(rows)
    if kind != "csv":
        assert [row.place for row in found] == list(range(1, len(rows) + 1))
        usable = [row["text"] for row in rows if _is_usable(row)]
        assert [row.text for row in good if row.text in usable][: len(usable)] == usable


def _is_usable(row: dict[str, Any]) -> bool:
    text, label = row.get("text"), row.get("label")
    return isinstance(text, str) and bool(text.strip()) and isinstance(label, str) and bool(label.strip())


ROWS = (
    st.lists(records, max_size=6),
    st.sampled_from(["jsonl", "json", "csv", "parquet", "feather"]),
    st.sampled_from(["", "", ".gz", ".bz2", ".zst"]),
)


test_good_rows_and_bad_rows_are_all_rows = fuzz(FILES)(given(*ROWS)(check_rows))
test_good_rows_and_bad_rows_are_all_rows_of_thousands_of_files = pytest.mark.slow(
    fuzz(MANY - MANY // 2)(given(*ROWS)(check_rows))
)
