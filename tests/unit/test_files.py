"""Readers: each format row by row, and every defect named with its place and nothing else."""

import bz2
import gzip
import io
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.orc
import pyarrow.parquet as pq
import pytest
from datafiles import pairs, read_path, rows_of
from pyarrow.fs import LocalFileSystem, SubTreeFileSystem

from raylora.cluster.data.endings import decide_format
from raylora.cluster.data.guess import read_columns, write_config
from raylora.cluster.data.rows import Row, Source
from raylora.cluster.data.sources import list_sources, read_rows
from raylora.cluster.data.tables import label_names
from raylora.cluster.storage.filesystem import Location
from raylora.config import DataSection
from raylora.errors import DataError


def orc_bytes(compression: Any) -> bytes:
    stream = io.BytesIO()
    pyarrow.orc.write_table(
        pa.table({"text": ["good one", "bad one"], "label": ["a", "b"]}), stream, compression=compression
    )
    return stream.getvalue()


Read = Callable[..., list[Row]]
UNUSABLE = {
    "missing_label_field",
    "too_many_fields",
    "unquoted_commas_in_text",
    "empty_text",
    "blank_text",
    "empty_label",
    "cp1252_bytes_in_utf8_file",
    "unclosed_quote_at_end",
}
NOT_A_LABEL = {"label_case", "label_numeric_code", "unknown_label", "header_repeated"}


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Rows of a file of this name and content."""

    def rows(name: str, content: str | bytes, **data: Any) -> list[Row]:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return read_path(path, **data)

    return rows


def parquet(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


# ---- formats


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", 'text,label\ngood,1\n"bad, really",0\n'),
        ("a.CSV", 'text,label\r\ngood,1\r\n"bad, really",0\r\n'),
        ("a.csv", '\ufefftext,label\ngood,1\n"bad, really",0'),
        ("a.csv", '\ufeff"text","label"\n"good","1"\n"bad, really","0"\n'),
        ("a.csv", 'text , label\ngood,1\n\n"bad, really", 0 \n\n'),
        ("a.csv", "id;label;text\n7;1;good\n8;0;bad, really\n"),
        ("a.csv", "text\tlabel\ngood\t1\nbad, really\t0\n"),
        ("a.csv", "text|label\ngood|1\nbad, really|0\n"),
        ("a.tsv", "label\ttext\n1\tgood\n0\tbad, really\n"),
        ("a.jsonl", '{"text": "good", "label": 1}\n\n{"label": "0", "text": "bad, really", "id": 8}\n'),
        ("a.ndjson", '\ufeff{"text": "good", "label": 1.0}\r\n{"text": "bad, really", "label": 0}'),
        ("a.json", '[{"text": "good", "label": 1}, {"text": "bad, really", "label": 0}]'),
    ],
)
def test_the_same_two_rows_come_from_every_text_format(read: Read, name: str, content: str) -> None:
    assert pairs(read(name, content)) == [("good", "1"), ("bad, really", "0")]


def test_the_same_two_rows_come_from_parquet(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", id=[7, 8], label=["1", "0"], text=["good", "bad, really"])
    assert pairs(read_path(path)) == [("good", "1"), ("bad, really", "0")]


def test_a_tsv_takes_quotes_literally(read: Read) -> None:
    rows = read("a.tsv", 'text\tlabel\n"open\ta\nsay "hi"\tb\n')
    assert pairs(rows) == [('"open', "a"), ('say "hi"', "b")]


def test_a_quoted_cell_holds_line_breaks_and_quotes(read: Read) -> None:
    rows = read("a.csv", 'text,label\n"one\r\ntwo ""three""",a\nfour,b\n')
    assert pairs(rows) == [('one\r\ntwo "three"', "a"), ("four", "b")]
    assert [row.place for row in rows] == [2, 4]


def test_a_place_counts_lines_in_text_files_and_rows_in_tables(read: Read, tmp_path: Path) -> None:
    assert [row.place for row in read("a.csv", "text,label\n\na,x\n\n\nb,y\n")] == [3, 6]
    assert [row.place for row in read("a.jsonl", '\n{"text": "a", "label": 1}\n\n{"text": "a", "label": 1}\n')] == [
        2,
        4,
    ]
    assert [row.place for row in read("a.json", '\n[{"text": "a", "label": 1},\n\n{"text": "a", "label": 1}]')] == [
        1,
        2,
    ]
    assert Source("/x/a.csv", "train", "csv").place(3) == "/x/a.csv, line 3"
    assert Source("/x/a.parquet", "train", "parquet").place(3) == "/x/a.parquet, row 3"
    assert Source("/x/a.json", "train", "json").place(3) == "/x/a.json, row 3"


@pytest.mark.parametrize(
    ("label", "expected"),
    [("a", "a"), (" a b\t", "a b"), (3, "3"), (-1, "-1"), (2.0, "2"), (True, "true"), (False, "false"), ("1.0", "1.0")],
)
def test_a_label_is_a_string_whatever_its_type(read: Read, label: Any, expected: str) -> None:
    assert pairs(read("a.jsonl", json.dumps({"text": "a", "label": label}))) == [("a", expected)]


def test_labels_of_a_table_are_strings_whatever_their_type(tmp_path: Path) -> None:
    for values, expected in (
        (pa.array([0, 1], pa.int8()), ["0", "1"]),
        (pa.array([0.0, 1.0]), ["0", "1"]),
        (pa.array([True, False]), ["true", "false"]),
        (pa.array([b"x", b"y "]), ["x", "y"]),
        (pa.array(["x", "y"]).dictionary_encode(), ["x", "y"]),
    ):
        path = parquet(tmp_path / "a.parquet", text=pa.array([b"good", "é".encode()]), label=values)
        assert pairs(read_path(path)) == list(zip(["good", "é"], expected, strict=True))


def test_a_text_keeps_its_whitespace_and_odd_characters(read: Read) -> None:
    texts = ["  padded ", "a\u2028b", "zero\u200bwidth", "nul\0", "😀", "None", "123"]
    content = "".join(json.dumps({"text": text, "label": 1}, ensure_ascii=False) + "\n" for text in texts)
    assert [text for text, _ in pairs(read("a.jsonl", content))] == texts


def test_a_very_long_cell_is_read_whole(read: Read) -> None:
    long = "word " * 40_000
    assert pairs(read("a.csv", f"text,label\n{long}end,a\n")) == [(long + "end", "a")]
    assert pairs(read("a.tsv", f"text\tlabel\n{long}end\ta\n")) == [(long + "end", "a")]


def test_text_pairs_are_read_from_every_format(read: Read, tmp_path: Path) -> None:
    files = {
        "a.csv": "label,b,a\nx,second,first\n",
        "a.jsonl": '{"a": "first", "b": "second", "label": "x"}',
        "a.json": '[{"a": "first", "b": "second", "label": "x"}]',
    }
    found = [row for n, c in files.items() for row in read(n, c, text_column="a", text_pair_column="b")]
    path = parquet(tmp_path / "a.parquet", b=["second"], label=["x"], a=["first"])
    found += read_path(path, text_column="a", text_pair_column="b")
    assert [(row.text, row.text_pair, row.label, row.fault) for row in found] == [("first", "second", "x", None)] * 4


def test_without_a_pair_column_there_is_no_pair(read: Read) -> None:
    assert read("a.csv", "text,label\na,x\n")[0].text_pair is None


# ---- faults


@pytest.mark.parametrize(
    ("record", "fault"),
    [
        ('{"text": null, "label": 1}', "'text' is null"),
        ('{"text": "", "label": 1}', "'text' is blank"),
        ('{"text": " \\n\\u00a0", "label": 1}', "'text' is blank"),
        ('{"text": 5, "label": 1}', "'text' must be text, found int '5'"),
        ('{"text": NaN, "label": 1}', "'text' must be text, found float 'nan'"),
        ('{"text": {"en": "a"}, "label": 1}', "'text' must be text, found dict \"{'en': 'a'}\""),
        ('{"text": "a", "label": null}', "'label' is null"),
        ('{"text": "a", "label": NaN}', "'label' is null"),
        ('{"text": "a", "label": "  "}', "'label' is blank"),
        ('{"text": "a", "label": 1.5}', "'label' must be a string or an int, found float '1.5'"),
        ('{"text": "a", "label": ["x"]}', "'label' must be a string or an int, found list \"['x']\""),
        ('{"text": "a", "lable": 1}', "'label' is missing; keys found: 'text', 'lable'"),
        ('{"text": "\\ud83d", "label": 1}', "'text' is not UTF-8: lone surrogate \\ud83d at character 0"),
        ("[1]", "must be an object, found list"),
        ('{"text": "a", ', "not JSON: "),
        ("[" * 100_000, "not JSON: "),
    ],
)
def test_a_record_that_cannot_be_used_is_a_fault_of_its_line_only(read: Read, record: str, fault: str) -> None:
    good = '{"text": "good", "label": "x"}'
    before, bad, after = read("a.jsonl", f"{good}\n{record}\n{good}\n")
    assert pairs([before, after]) == [("good", "x")] * 2
    assert bad.place == 2
    assert (bad.fault or "").startswith(fault)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("a", "the header has 2 fields, this row 1"),
        ("a,b,c", "the header has 2 fields, this row 3"),
        (",x", "'text' is blank"),
        ("a,", "'label' is blank"),
        ('"a" b,x', "broken row: "),
    ],
)
def test_a_broken_csv_row_is_a_fault_of_its_line_only(read: Read, line: str, fault: str) -> None:
    before, bad, after = read("a.csv", f'text,label\n"first\nrow",x\n{line}\nlast,x\n')
    assert pairs([before, after]) == [("first\nrow", "x"), ("last", "x")]
    assert bad.place == 4
    assert (bad.fault or "").startswith(fault)


def test_an_unclosed_quote_at_the_end_is_a_fault_where_it_opens(read: Read) -> None:
    first, last = read("a.csv", 'text,label\ngood,x\n"never closed,x\nand more,x\n')
    assert pairs([first]) == [("good", "x")]
    assert (last.place, last.fault) == (3, "broken row: unexpected end of data")


def test_undecodable_bytes_are_a_fault_of_their_row_only(read: Read) -> None:
    for name, content in (
        ("a.csv", b"text,label\ngood,x\ncaf\xe9,x\nna,y\x85\nlast,x\n"),
        ("a.tsv", b"text\tlabel\ngood\tx\ncaf\xe9\tx\nna\ty\x85\nlast\tx\n"),
    ):
        first, text, label, last = read(name, content)
        assert pairs([first, last]) == [("good", "x"), ("last", "x")]
        assert text.fault == (
            "'text' is not UTF-8: byte 0xe9 at character 3. Set data.encoding=cp1252 if it should be 'café'"
        )
        assert (label.fault or "").startswith(
            "'label' is not UTF-8: byte 0x85 at character 1. Set data.encoding=cp1252"
        )


def test_null_and_blank_cells_of_a_table_are_faults(tmp_path: Path) -> None:
    path = parquet(
        tmp_path / "a.parquet", text=["a", None, " ", "b", b"\xff".decode("latin1")], label=["x", "x", "x", None, "x"]
    )
    faults = [(row.place, row.fault) for row in read_path(path) if row.fault]
    assert faults == [(2, "'text' is null"), (3, "'text' is blank"), (4, "'label' is null")]
    path = parquet(tmp_path / "b.parquet", text=[b"\xff", b"b"], label=[float("nan"), 2.0])
    bad, good = read_path(path)
    assert (bad.fault or "").startswith("'text' is not UTF-8: byte 0xff at character 0")
    assert good.fault is None


def test_a_missing_half_of_a_pair_is_a_fault(read: Read) -> None:
    content = '{"a": "x", "b": "", "label": 1}\n{"a": "x", "label": 1}\n'
    blank, missing = read("a.jsonl", content, text_column="a", text_pair_column="b")
    assert blank.fault == "'b' is blank"
    assert missing.fault == "'b' is missing; keys found: 'a', 'label'"


def test_a_label_that_is_not_configured_is_a_fault(read: Read) -> None:
    rows = read("a.csv", "text,label\na,no\nb, yes \nc,No\n", labels=["no", "yes"])
    assert pairs(rows[:2]) == [("a", "no"), ("b", "yes")]
    assert rows[2].fault == "label 'No' is not one of `data.labels` (no, yes)"


# ---- files that yield nothing


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.csv", "", r"a\.csv is empty: a csv file starts with a line of column names"),
        ("a.tsv", "", r"a\.tsv is empty: a tsv file"),
        ("a.jsonl", "", r"a\.jsonl holds no rows: it is empty"),
        ("a.json", "", r"a\.json is empty"),
        ("a.json", "[]", r"a\.json holds no rows"),
        ("a.csv", "text,label\n", r"a\.csv holds no rows: only a header"),
        (
            "a.csv",
            "review,stars\na,1\n",
            r"no column 'text'\. Columns found: 'review', 'stars'\. Set `data\.text_column`",
        ),
        (
            "a.csv",
            "text,stars\na,1\n",
            r"no column 'label'\. Columns found: 'text', 'stars'\. Set `data\.label_column`",
        ),
        ("a.csv", "TEXT,label\na,1\n", r"no column 'text'\. Columns found: 'TEXT', 'label'"),
        ("a.csv", '"text,label\na,1\n', r"a\.csv: the header cannot be read"),
        ("a.json", '{"text": "a"}', r"must hold a list of objects, found dict"),
        ("a.json", '{"text": "a",\n"x": 1}\n{"text": "b"}', r"is not JSON: .*Set data\.format=jsonl"),
        ("a.parquet", "text,label\na,1\n", r"a\.parquet is not readable as parquet"),
        ("a.parquet", "", r"a\.parquet is empty"),
        ("a.parquet", b"PAR1" + bytes(100) + b"PAR1", r"a\.parquet is not readable as parquet"),
        ("a.xlsx", "text,label\na,1\n", r"a\.xlsx is an Excel workbook\. Save the sheet as csv"),
        ("a", "text,label\na,1\n", r"the ending '' tells no format"),
    ],
)
def test_a_file_that_yields_nothing_is_refused_at_once(
    read: Read, name: str, content: str | bytes, reason: str
) -> None:
    with pytest.raises(DataError, match=reason):
        read(name, content)


def test_a_missing_pair_column_is_refused(read: Read) -> None:
    with pytest.raises(
        DataError, match=r"no column 'b'\. Columns found: 'text', 'label'\. Set `data\.text_pair_column`"
    ):
        read("a.csv", "text,label\na,1\n", text_pair_column="b")


def test_a_table_without_the_column_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no column 'label'\. Columns found: 'text', 'y'"):
        read_path(parquet(tmp_path / "a.parquet", text=["a"], y=[1]))


def test_a_truncated_table_is_refused(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", text=["a"] * 100, label=[1] * 100)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match="not readable as parquet"):
        read_path(path)


@pytest.mark.parametrize("first", ["ORCID", "ORC", "BZhang_id", "BZh9", "PAR1", "ARROW1", "Obj", "%PDF", "PK", "7z"])
@pytest.mark.parametrize("odd", ["", "\x01", "é"])
def test_a_column_may_be_named_as_another_format_begins(read: Read, first: str, odd: str) -> None:
    assert pairs(read("a.csv", f"{first},text,label\n1,good{odd},x\n")) == [(f"good{odd}", "x")]


def test_json_that_is_nested_without_end_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "a", "label": "x"}\n')
    (tmp_path / "deep.json").write_text('{"a":' * 100_000)
    data = DataSection(train=str(tmp_path))
    with pytest.raises(DataError, match=r"deep\.json is not JSON: "):
        [list(read_rows(source, data)) for source in list_sources(data)]


def test_a_table_whose_features_are_nested_without_end_has_no_label_names() -> None:
    assert label_names(pa.schema([], {"huggingface": "[" * 100_000})) == {}


def test_the_configured_format_beats_the_ending(read: Read) -> None:
    assert pairs(read("a.txt", "text\tlabel\na\tx\n", format="tsv")) == [("a", "x")]
    assert pairs(read("a.csv", '{"text": "a", "label": "x"}\n', format="jsonl")) == [("a", "x")]
    assert decide_format("s3://bucket/a.JSONL?region=eu", "auto") == "jsonl"


# ---- what a file is, whatever its name says


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ('"text; with, both",label;x', "a;b,x;y"),
        ('"a;b;c",label,text', "1,x,a"),
        ('label;"what, exactly, was said";text', "x;1;a"),
        ('"two\n, lines; here";label;text', "1;x;a"),
        ('\ufefflabel,"a;b;c;d",text', "x,1,a"),
        ('5" screen;label;text', "1;x;a"),
        ('label\t"a,b,c,d"\ttext', "x\t1\ta"),
        ('"say ""a;b;c"" twice",label,text', "1,x,a"),
    ],
)
def test_a_delimiter_inside_quotes_of_the_header_does_not_count(read: Read, header: str, row: str) -> None:
    data = {"text_column": "text; with, both", "label_column": "label;x"} if "label;x" in header else {}
    assert [r.fault for r in read("a.csv", f"{header}\n{row}\n", **data)] == [None]


ZIP = b"PK\x03\x04" + bytes(range(256))
PACKED = gzip.compress(b"text,label\na,x\n" * 50, mtime=0)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.csv", PACKED, r"a\.csv is compressed \(gzip\).*gunzip"),
        ("a.jsonl", bz2.compress(b"{}"), r"a\.jsonl is compressed \(bzip2\).*bunzip2"),
        ("a.tsv", lzma.compress(b"text"), r"a\.tsv is compressed \(xz\).*unxz"),
        ("a.json", b"\x28\xb5\x2f\xfd" + bytes(20), r"is compressed \(zstd\).*unzstd"),
        ("a.parquet", PACKED, r"a\.parquet is compressed \(gzip\)"),
        ("a.zip", ZIP, r"a\.zip cannot be unpacked: File is not a zip file\. Is it whole\?"),
        ("a.xlsx", ZIP, r"a\.xlsx is an Excel workbook.*csv"),
        ("a.csv", ZIP, r"a\.csv is a zip archive or an Excel workbook"),
        ("a.csv", b"PAR1" + bytes(range(200)), r"a\.csv is parquet.*data\.format=parquet"),
        ("a.jsonl", b"ARROW1\0\0" + bytes(200), r"a\.jsonl is an Arrow file"),
        ("a.csv", orc_bytes("zlib"), r"a\.csv is ORC"),
        ("a.csv", orc_bytes("uncompressed"), r"a\.csv is ORC"),
        ("a.txt", b"%PDF-1.7\n%", r"a\.txt is a PDF"),
        ("a.avro", b"Obj\x01" + bytes(20), r"a\.avro is Avro"),
        ("a.db", b"SQLite format 3\0", r"a\.db is an SQLite database"),
        ("a.csv", bytes(range(256)) * 8, r"a\.csv is binary"),
        ("a.csv", "text,label\na,x\n".encode("utf-16-le"), r"a\.csv is UTF-16.*data\.encoding=utf-16-le"),
        ("a.csv", "text,label\na,x\n".encode("utf-16-be"), r"a\.csv is UTF-16.*data\.encoding=utf-16-be"),
        ("a.parquet", "text,label\na,1\n", r"a\.parquet is not readable as parquet: .*text.*data\.format"),
    ],
)
def test_content_that_is_no_text_is_named_as_what_it_is(
    read: Read, tmp_path: Path, name: str, content: str | bytes, reason: str
) -> None:
    for entrance in (lambda: read(name, content), lambda: read_columns(str(tmp_path / name))):
        with pytest.raises(DataError, match=reason) as told:
            entrance()
        assert "Columns found" not in str(told.value)
        assert "to csv, tsv, jsonl" not in str(told.value), "advice that leads nowhere"


def test_text_with_a_nul_or_odd_bytes_in_its_rows_is_text(read: Read) -> None:
    assert pairs(read("a.csv", b"text,label\nnul\0,x\n")) == [("nul\0", "x")]
    assert [row.fault for row in read("a.csv", b"text,label,\xfc\nb,x,1\n")] == [None]


@pytest.mark.parametrize(
    ("name", "content", "told", "untold"),
    [
        ("a.tsv", "text,label\na,x\n", "no tab.*data.format=csv", "text_column"),
        ("a.csv", "ham,Go until jurong point\nspam,win\n", "line of column names", ""),
        ("a.json", '[{"text": "a"', "is not JSON", "jsonl"),
        ("a.json", '{"text": "a",\n"x": 1}\n{"text": "b"}', "data.format=jsonl", ""),
        ("a.jsonl", '[{"text": "a", "label": 1},\n {"text": "b", "label": 2}]', "data.format=json", "on_bad_row"),
        ("a.csv", ",\na,x\n", "no column 'text'", "is empty"),
        ("a.csv", "テキスト,label\na,x\n".encode("shift-jis"), "first line is not UTF-8.*iconv", "text_column"),
    ],
)
def test_advice_leads_somewhere(read: Read, name: str, content: str | bytes, told: str, untold: str) -> None:
    with pytest.raises(DataError, match=told) as error:
        read(name, content)
    assert not untold or untold not in str(error.value)


def test_blank_lines_before_a_header_are_passed_over(read: Read) -> None:
    (row,) = read("a.csv", "\n\ntext;label\n\na;x\n")
    assert (row.text, row.label, row.place) == ("a", "x", 5)


def test_a_whole_float_in_a_csv_is_the_label_that_it_is_in_a_table(read: Read, tmp_path: Path) -> None:
    rows = read("a.csv", "text,label\na,1.0\nb,0.0\nc,-2.00\nd,10\n")
    assert [label for _, label in pairs(rows)] == ["1", "0", "-2", "10"]
    assert [label for _, label in pairs(read("a.tsv", "text\tlabel\na\t3.0\n"))] == ["3"]
    odd = "1.5", "1.", ".0", "v1.0", "1.0.0", "01.0", "1e0"
    rows = read("a.csv", "text,label\n" + "".join(f"a,{label}\n" for label in odd))
    assert tuple(label for _, label in pairs(rows)) == odd, "no whole float"
    assert pairs(read("a.csv", "text,label\na,1.0\n", labels=["1.0", "2.0"])) == [("a", "1.0")]


def test_the_label_names_of_a_tables_own_metadata_are_the_labels(tmp_path: Path) -> None:
    import datasets

    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    path = tmp_path / "a.parquet"
    datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": [1, 0, -1]}, features=features).to_parquet(str(path))
    yes, no, unlabelled = read_path(path)
    assert pairs([yes, no]) == [("a", "yes"), ("b", "no")]
    assert unlabelled.fault == "'label' is -1; the file names labels 0 to 1"
    assert [row.label for row in read_path(path, labels=["0", "1"])[:2]] == ["1", "0"]
    assert read_columns(str(path))["label"] == ["yes", "no", None]


def test_two_columns_of_one_name_are_refused_where_they_are_wanted(read: Read, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.csv has two columns named 'text'\. Rename one"):
        read("a.csv", "text,label,text\na,x,b\n")
    assert pairs(read("a.csv", "text,label,,\na,x,,\n")) == [("a", "x")]
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["x"]), pa.array(["y"])], names=["text", "label", "label"])
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet has two columns named 'label'"):
        read_path(tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"two columns named 'label'"):
        write_config(str(tmp_path / "a.parquet"), str(tmp_path / "a.yaml"))


# ---- where files are found


def test_no_train_file_is_the_bundled_demo() -> None:
    (source,) = list_sources(DataSection())
    assert (source.name, source.split, source.format) == ("reviews.jsonl", "train", "jsonl")
    assert {row.label for row in read_rows(source, DataSection())} == {"negative", "positive"}


def test_folders_globs_and_lists_are_files_in_a_fixed_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("c.csv", "a.csv", "b.CSV", "deep/d.csv"):
        (tmp_path / name).write_text("text,label\na,x\n", encoding="utf-8")
    for name in ("README.md", ".hidden"):
        (tmp_path / name).write_text("no data", encoding="utf-8")

    def found(train: str | list[str]) -> list[str]:
        sources = list_sources(DataSection(train=train))
        assert all(Path(source.path).is_absolute() for source in sources)
        return [Path(source.path).relative_to(tmp_path).as_posix() for source in sources]

    monkeypatch.chdir(tmp_path)
    assert found(str(tmp_path)) == ["a.csv", "b.CSV", "c.csv"]
    assert found("*.csv") == ["a.csv", "c.csv"]
    assert found("**/*.csv") == ["a.csv", "c.csv", "deep/d.csv"]
    assert found(["deep", "c.csv"]) == ["deep/d.csv", "c.csv"]
    assert found("./a.csv") == ["a.csv"]


HAS_ROWS = "text,label\na,x\n"


def lay(root: Path, *names: str, **contents: str | bytes) -> Path:
    """Files in a folder: `names` hold a row each."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(HAS_ROWS, encoding="utf-8")
    for name, content in contents.items():
        path = root / name.replace("__", ".")
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def found_in(root: Path, train: str | list[str], **data: Any) -> list[str]:
    """Names of the files that a job reads, from `root`."""
    sources = list_sources(DataSection(train=train, **data))
    return [Path(source.path).relative_to(root).as_posix() for source in sources]


SIDE_FILES = (
    "._a.csv", ".a.csv.swp", "_SUCCESS", "_metadata.csv", "_temporary/0/a.csv", ".ipynb_checkpoints/a-checkpoint.csv",
    "_delta_log/0.json", "__MACOSX/a.csv", "README.md", "LICENSE", "notes.txt",
)  # fmt: skip


@pytest.mark.parametrize("train", ["{}", "{}/*", "{}/*.csv", "{}/**/*", "{}/**/*.csv", "file://{}"])
def test_side_files_in_a_folder_are_no_data(tmp_path: Path, train: str) -> None:
    lay(tmp_path, "a.csv", "b.csv", *SIDE_FILES)
    assert found_in(tmp_path, train.format(tmp_path)) == ["a.csv", "b.csv"]


def test_a_json_object_beside_data_is_no_data(tmp_path: Path) -> None:
    lay(tmp_path, "a.csv", dataset_info__json='\ufeff {"features": {}}', more__json='[{"text": "b", "label": "y"}]')
    assert found_in(tmp_path, str(tmp_path)) == ["a.csv", "more.json"]
    (tmp_path / "a.csv").unlink()
    (tmp_path / "more.json").unlink()
    with pytest.raises(DataError, match=r"dataset_info\.json must hold a list of objects, found dict"):
        list_sources(DataSection(train=str(tmp_path)))
    assert found_in(tmp_path, str(tmp_path), format="jsonl") == ["dataset_info.json"]


def test_a_file_named_by_itself_is_data_whatever_its_name(tmp_path: Path) -> None:
    lay(tmp_path, "_a.csv", ".b.csv", "c.csv")
    for train in ("_a.csv", ".b.csv"):
        assert found_in(tmp_path, f"{tmp_path}/{train}") == [train]
    assert found_in(tmp_path, f"{tmp_path}/_*.csv") == ["_a.csv"]
    assert found_in(tmp_path, str(lay(tmp_path / "_hidden", "d.csv"))) == ["_hidden/d.csv"]


@pytest.mark.parametrize(
    ("name", "empty"),
    [
        ("a.csv", ""),
        ("a.csv", "text,label\n"),
        ("a.csv", "\n\n"),
        ("a.tsv", ""),
        ("a.jsonl", "\n"),
        ("a.json", ""),
        ("a.json", "[]"),
        ("a.parquet", ""),
    ],
)
def test_an_empty_part_beside_full_ones_is_no_data(tmp_path: Path, name: str, empty: str) -> None:
    (tmp_path / name).write_text(empty)
    with pytest.raises(DataError, match=r"is empty|holds no rows"):
        list_sources(DataSection(train=str(tmp_path)))
    for train in (str(tmp_path), [str(tmp_path / name), str(tmp_path / "b.csv")]):
        lay(tmp_path, "b.csv")
        assert pairs(read_path(tmp_path)) == [("a", "x")]
        assert pairs([row for s in list_sources(DataSection(train=train)) for row in rows_of(s, DataSection())])


def test_a_folder_of_a_tables_parts_is_found_by_a_glob(tmp_path: Path) -> None:
    lay(tmp_path, "b.csv/part-1.csv", "b.csv/_SUCCESS", "a.csv")
    assert found_in(tmp_path, f"{tmp_path}/*.csv") == ["a.csv", "b.csv/part-1.csv"]


def test_parts_without_an_ending_are_read_where_the_format_is_named(tmp_path: Path) -> None:
    lay(tmp_path, "part-0", "part-1", "_SUCCESS")
    with pytest.raises(DataError, match=r"holds no data file; .*Files there: part-0, part-1\. .*data\.format"):
        list_sources(DataSection(train=str(tmp_path)))
    assert found_in(tmp_path, str(tmp_path), format="csv") == ["part-0", "part-1"]


def test_a_folder_of_files_that_must_be_unpacked_says_so(tmp_path: Path) -> None:
    lay(tmp_path, "a.csv.xz", "b.csv.7Z")
    with pytest.raises(DataError, match=r"Files there: a\.csv\.xz, b\.csv\.7Z\. They are not read as they are: unpack"):
        list_sources(DataSection(train=str(tmp_path)))


def test_a_folder_of_folders_names_them(tmp_path: Path) -> None:
    lay(tmp_path, "june/a.csv", "may/a.csv", "_logs/a.csv")
    with pytest.raises(DataError, match=r"holds no data file; .*Folders there: june, may\. .*\*\*/\*"):
        list_sources(DataSection(train=str(tmp_path)))


def test_a_folder_on_object_storage_is_one_like_any_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lay(tmp_path / "bucket", "b.csv", "c.csv/part-0.csv", *SIDE_FILES, dataset_info__json="{}", a__csv="")
    store = SubTreeFileSystem(str(tmp_path), LocalFileSystem())

    def located(address: str) -> Location:
        return Location(address, store, address.partition("?")[0].removeprefix("x://"))

    for module in ("find", "streams"):
        monkeypatch.setattr(f"raylora.cluster.data.{module}.locate", located)
    empty, full = list_sources(DataSection(train="x://bucket?key=1"))
    assert (empty.path, empty.size, full.path, full.size) == ("x://bucket/a.csv?key=1", 0, "x://bucket/b.csv?key=1", 15)
    assert rows_of(empty, DataSection()) == []
    assert pairs(rows_of(full, DataSection())) == [("a", "x")]


def test_a_file_whose_name_looks_like_a_glob_is_that_file(tmp_path: Path) -> None:
    (tmp_path / "a[1].csv").write_text("text,label\na,x\n", encoding="utf-8")
    assert pairs(read_path(tmp_path / "a[1].csv")) == [("a", "x")]


def test_every_split_keeps_its_side(tmp_path: Path) -> None:
    paths = {split: str(tmp_path / f"{split}.csv") for split in ("train", "validation", "test")}
    for path in paths.values():
        Path(path).write_text("text,label\na,x\n", encoding="utf-8")
    found = [(source.split, source.path) for source in list_sources(DataSection(**paths))]
    assert found == list(paths.items())


def test_a_uri_reads_like_a_path(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('\ufefftext,label\n"a\nb",x\n', encoding="utf-8")
    parquet(tmp_path / "b.parquet", text=["c"], label=["y"])
    assert pairs(read_path(f"file://{tmp_path}/a.csv")) == [("a\nb", "x")]
    assert pairs(read_path(f"file://{tmp_path}")) == [("a\nb", "x"), ("c", "y")]


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        ("gone.csv", r"gone\.csv is not there \(looked in /.*\)\. Check `data\.train`"),
        ("*.csv", r"\*\.csv is not there"),
        (".", r"folder /.* holds no data file; known endings: \.csv"),
        ("file:///gone/away.csv", "file:///gone/away.csv is not there"),
        ("gopher://x/a.csv", "gopher://x/a.csv cannot be reached"),
    ],
)
def test_what_is_not_there_is_refused(where: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=reason):
        list_sources(DataSection(train=where))
    with pytest.raises(DataError, match=reason):
        list_sources(DataSection(test=["gone.csv", where] if where == "gone.csv" else where))


def test_a_hub_dataset_reads_with_its_label_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    table = datasets.Dataset.from_dict({"text": ["a", "b", None], "label": [1, 0, 0]}, features=features)
    (tmp_path / "folder").mkdir()
    table.to_parquet(str(tmp_path / "folder" / "train.parquet"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    first, second, null = read_path("hf://folder")
    assert pairs([first, second]) == [("a", "yes"), ("b", "no")]
    assert (null.place, null.fault) == (3, "'text' is null")
    with pytest.raises(
        DataError, match=r"hf://folder \(split 'test'\) cannot be .*Where there is no hub, set `data\.test`"
    ):
        list_sources(DataSection(test="hf://folder"))


# ---- real files


@pytest.mark.parametrize(
    ("labels", "wrong"), [(None, UNUSABLE), (["negative", "positive"], UNUSABLE | NOT_A_LABEL)], ids=["any", "fixed"]
)
def test_the_faults_of_a_dirty_file_are_its_unusable_rows_and_no_others(
    real_data: Path, labels: list[str] | None, wrong: set[str]
) -> None:
    manifest = json.loads((real_data / "dirty" / "MANIFEST.json").read_text(encoding="utf-8"))["reviews_dirty.csv"]
    rows = read_path(real_data / "dirty" / "reviews_dirty.csv", labels=labels)
    assert wrong <= manifest["defects"].keys()
    expected = {defect["line"] for defect in manifest["where"] if defect["defect"] in wrong}
    assert {row.place for row in rows if row.fault} == expected
    assert len(rows) == manifest["records"] - manifest["defects"]["blank_line"]
    assert sum(row.fault is None for row in rows) >= manifest["good_rows"]


def test_one_file_in_four_encodings_yields_the_same_rows(real_data: Path) -> None:
    names = ("reviews_utf8.csv", "reviews_utf8_bom.csv", "reviews_crlf.csv", "reviews_utf16.csv")
    plain, bom, crlf, utf16 = (pairs(read_path(real_data / "dirty" / name)) for name in names)
    assert len(plain) == 200
    assert plain == bom == crlf == utf16


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("reviews_tab_noheader.tsv", "has no column 'text'"),
        ("reviews_other_columns.csv", r"Columns found: 'id', 'Review', 'Sentiment', 'stars'"),
        ("empty.csv", "is empty"),
        ("header_only.csv", "only a header"),
        ("not_really.parquet", "not readable as parquet"),
    ],
)
def test_a_degenerate_real_file_is_refused(real_data: Path, name: str, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        read_path(real_data / "dirty" / name)


def test_real_tables_with_nulls_and_bytes_are_read(real_data: Path) -> None:
    faults = [row.fault for row in read_path(real_data / "dirty" / "reviews_nulls.parquet") if row.fault]
    assert (faults.count("'text' is null"), faults.count("'text' is blank"), len(faults)) == (10, 3, 18)
    labels = {label for _, label in pairs(read_path(real_data / "dirty" / "reviews_binary_text_int_label.parquet"))}
    assert labels == {"0", "1"}


@pytest.mark.parametrize(("name", "rows"), [("long_documents.jsonl", 20), ("tweets_emoji.jsonl", 349)])
def test_real_long_and_odd_texts_are_read_whole(real_data: Path, name: str, rows: int) -> None:
    path = real_data / "dirty" / name
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    assert pairs(read_path(path)) == [(record["text"], str(record["label"])) for record in records]
    assert len(records) == rows


@pytest.mark.parametrize(
    ("name", "rows", "labels", "data"),
    [
        ("sms_spam_kaggle_layout.csv", 5572, 2, {"text_column": "v2", "label_column": "v1"}),
        ("banking77_test.csv", 3080, 77, {"label_column": "category"}),
        ("davidson_labeled_data.csv", 24783, 3, {"text_column": "tweet", "label_column": "class"}),
        ("sst2_dev.tsv", 872, 2, {"text_column": "sentence"}),
        (
            "msr_paraphrase_test.bom.txt",
            1725,
            2,
            {
                "format": "tsv",
                "text_column": "#1 String",
                "text_pair_column": "#2 String",
                "label_column": "Quality",
            },
        ),
    ],
)
def test_files_as_published_read_whole(
    real_data: Path, name: str, rows: int, labels: int, data: dict[str, Any]
) -> None:
    found = pairs(read_path(real_data / "raw_formats" / name, **data))
    assert (len(found), len({label for _, label in found})) == (rows, labels)


def test_published_pairs_are_the_pairs_of_the_uniform_copy(real_data: Path) -> None:
    rows = read_path(
        real_data / "raw_formats" / "msr_paraphrase_test.bom.txt",
        format="tsv",
        text_column="#1 String",
        text_pair_column="#2 String",
        label_column="Quality",
    )
    copy = read_path(real_data / "mrpc" / "test.parquet", text_column="text_a", text_pair_column="text_b")
    assert [(row.text, row.text_pair) for row in rows] == [(row.text, row.text_pair) for row in copy]


def test_a_published_file_without_a_header_is_refused(real_data: Path) -> None:
    with pytest.raises(DataError, match=r"has no column 'text'\. Columns found: 'ham', 'Go until jurong point"):
        read_path(real_data / "raw_formats" / "SMSSpamCollection", format="tsv")
