"""csv, tsv and txt as people write them: any delimiter, quotes, decimal commas, with a header or without."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from datafiles import ROWS, pairs, read_path

from raylora.cluster.data.guess import write_config
from raylora.cluster.data.parts import cut
from raylora.cluster.data.sources import list_sources, read_rows
from raylora.config import DataSection
from raylora.config import file as jobfile
from raylora.errors import DataError


def save(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def written(rows: list[tuple[str, ...]], **options: Any) -> str:
    """As Python's csv module writes it."""
    stream = io.StringIO()
    csv.writer(stream, **options).writerows(rows)
    return stream.getvalue()


def check_parts(path: Path, **data: Any) -> None:
    """Read in parts it is what it is whole."""
    section = DataSection(train=str(path), **data)
    (source,) = list_sources(section)
    whole = list(read_rows(source, section))
    for part_bytes in (1, 40, 10**6):
        parts = cut(source, section, part_bytes)
        assert [row for part in parts for row in read_rows(source, section, part)] == whole
        assert len(parts) > 1 or part_bytes > 1


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_awkward_cells_come_whole_whatever_parts_them(tmp_path: Path, delimiter: str, end: str) -> None:
    content = written([("text", "label"), *ROWS], delimiter=delimiter, lineterminator=end)
    path = save(tmp_path / "a.csv", content)
    assert pairs(read_path(path)) == ROWS
    check_parts(path)


@pytest.mark.parametrize("delimiter", ["^", "~", ":", "#", "\x01", "§", " ", "a"])
def test_any_character_may_part_cells(tmp_path: Path, delimiter: str) -> None:
    path = save(tmp_path / "a.csv", written([("text", "lbl"), *ROWS], delimiter=delimiter, quoting=csv.QUOTE_ALL))
    assert pairs(read_path(path, delimiter=delimiter, label_column="lbl")) == ROWS
    check_parts(path, delimiter=delimiter, label_column="lbl")


@pytest.mark.parametrize("delimiter", ["::", "||", " || ", "§§", "<sep>", "->"])
def test_several_characters_may_part_cells(tmp_path: Path, delimiter: str) -> None:
    cells = [("label", "text"), ("x", "one: two | three"), ("y", '"quoted' + delimiter + 'with ""it"""'), ("x", "ü 😀")]
    path = save(tmp_path / "a.csv", "".join(delimiter.join(row) + "\r\n" for row in cells))
    assert pairs(read_path(path, delimiter=delimiter)) == [
        ("one: two | three", "x"),
        (f'quoted{delimiter}with "it"', "y"),
        ("ü 😀", "x"),
    ]
    check_parts(path, delimiter=delimiter)


def test_a_row_that_is_broken_names_a_long_delimiter_as_it_is(tmp_path: Path) -> None:
    path = save(tmp_path / "a.csv", 'text::label\n"a" b::x\nc::y\n')
    bad, good = read_path(path, delimiter="::")
    assert bad.fault == "broken row: '::' expected after '\"'"
    assert good.text == "c"


@pytest.mark.parametrize("spelled", ["tab", "\\t", "\t"])
def test_a_tab_may_be_spelled(tmp_path: Path, spelled: str) -> None:
    path = save(tmp_path / "a.csv", "text;more,and\tlabel\na, b; c\tx\n")
    assert pairs(read_path(path, delimiter=spelled, text_column="text;more,and")) == [("a, b; c", "x")]


@pytest.mark.parametrize("delimiter", ["", '"', "a\nb", "\r"])
def test_what_cannot_part_cells_is_refused(delimiter: str) -> None:
    with pytest.raises(ValueError, match="`delimiter` must be one or more characters, no quote and no line break"):
        DataSection(delimiter=delimiter)


@pytest.mark.parametrize(("delimiter", "encoding"), [("§", "ascii"), ("\udc80", None), (";€", "iso-8859-1")])
def test_a_delimiter_that_the_encoding_does_not_have_is_refused(delimiter: str, encoding: str | None) -> None:
    with pytest.raises(ValueError, match="cannot be in a file of `encoding`"):
        DataSection(delimiter=delimiter, encoding=encoding)
    assert DataSection(delimiter="§", encoding="utf-16").delimiter == "§"


def test_quotes_may_be_escaped_by_backslashes(tmp_path: Path) -> None:
    """As Spark and MySQL write them."""
    content = 'text,label\n"she said \\"hi, there\\"\nand left",x\n"a \\\\ b",y\n"doubled ""too""",x\n'
    path = save(tmp_path / "a.csv", content)
    expected = [('she said "hi, there"\nand left', "x"), ("a \\ b", "y"), ('doubled "too"', "x")]
    assert pairs(read_path(path, quoting="backslash")) == expected
    check_parts(path, quoting="backslash")
    first = read_path(path)[0]
    assert (first.fault or "").endswith("(quotes with a backslash? Set data.quoting=backslash)")
    job = jobfile.read([str(write_config(str(path), str(tmp_path / "job.yaml")))], {})
    assert job.data.quoting == "backslash"


def test_quotes_are_characters_where_the_config_says_so(tmp_path: Path) -> None:
    path = save(tmp_path / "a.csv", 'text,label\n"open,x\n5" screen,y\n')
    assert pairs(read_path(path, quoting="none")) == [('"open', "x"), ('5" screen', "y")]
    check_parts(path, quoting="none")


def test_a_tsv_with_quoted_cells_is_read_where_the_config_says_so(tmp_path: Path) -> None:
    path = save(tmp_path / "a.tsv", written([("text", "label"), *ROWS], delimiter="\t"))
    assert pairs(read_path(path, quoting="doubled")) == ROWS


def test_a_txt_is_told_by_its_first_line(tmp_path: Path) -> None:
    """Quotes between tabs are taken literally, as in a tsv; else as in a csv."""
    assert pairs(read_path(save(tmp_path / "a.txt", 'text\tlabel\n"open\tx\n'))) == [('"open', "x")]
    assert pairs(read_path(save(tmp_path / "b.txt", 'text;label\n"a; b";x\n'))) == [("a; b", "x")]


@pytest.mark.parametrize(
    ("label", "expected"),
    [("3,5", "3.5"), ("1,0", "1"), ("-0,25", "-0.25"), ("1.234,5", "1234.5"), ("1.234", "1234"), ("12", "12")]
    + [(name, name) for name in ("a,b", "v1.2", "1.2.3", "1,2,3", "3.5", ",5")],
)
def test_a_decimal_comma_is_read_in_labels_that_are_numbers(tmp_path: Path, label: str, expected: str) -> None:
    path = save(tmp_path / "a.csv", f"text;label\n3,5 stars;{label}\n")
    assert pairs(read_path(path, decimal=",")) == [("3,5 stars", expected)]
    assert pairs(read_path(path)) == [("3,5 stars", label)]


@pytest.mark.parametrize(
    ("separator", "cells", "expected"),
    [
        ("|", ["1.0", "1.0|2.0", " 2.0 | x"], [["1"], ["1", "2"], ["2", "x"]]),
        ("; ", ["v1.0", "1.5; 2.0"], [["v1.0"], ["1.5", "2"]]),
    ],
)
def test_a_label_among_several_is_the_one_that_stands_alone(
    tmp_path: Path, separator: str, cells: list[str], expected: list[list[str]]
) -> None:
    path = save(tmp_path / "a.csv", written([("text", "label"), *(("a text", cell) for cell in cells)]))
    rows = read_path(path, label_separator=separator, problem_type="multi_label_classification")
    assert [json.loads(row.label) for row in rows] == expected


def test_numbers_between_separators_may_have_a_decimal_comma(tmp_path: Path) -> None:
    path = save(tmp_path / "a.csv", "text\tlabel\na text\t1,5;2;1.000,25\n")
    rows = read_path(path, decimal=",", label_separator=";", delimiter="tab", problem_type="regression")
    assert [json.loads(row.label) for row in rows] == [[1.5, 2.0, 1000.25]]


def test_a_whole_number_with_blanks_around_it_is_that_number(tmp_path: Path) -> None:
    path = save(tmp_path / "a.csv", "text,label\na text, 1.0 \na text,1\n")
    assert [row.label for row in read_path(path)] == ["1", "1"]


def test_a_label_that_the_config_names_is_no_number(tmp_path: Path) -> None:
    path = save(tmp_path / "a.csv", "text;label\na;3,5\n")
    assert pairs(read_path(path, decimal=",", labels=["3,5", "4"])) == [("a", "3,5")]


HEADLESS = "ham\tOk, lar... Joking wif u, oni...\nspam\tFree, entry, in, 2\n\nham\tno\n"


def test_columns_are_named_by_the_config_where_the_first_line_is_a_row(tmp_path: Path) -> None:
    for name in ("a.tsv", "a.txt", "a.csv"):
        path = save(tmp_path / name, HEADLESS)
        rows = read_path(path, columns=["label", "text"])
        assert [label for _, label in pairs(rows)] == ["ham", "spam", "ham"]
        assert [row.place for row in rows] == [1, 2, 4]
        check_parts(path, columns=["label", "text"])


def test_columns_are_named_by_their_positions_where_the_first_line_is_a_row(tmp_path: Path) -> None:
    path = save(tmp_path / "a.txt", HEADLESS)
    rows = read_path(path, text_column="1", label_column="0")
    assert pairs(rows)[0] == ("Ok, lar... Joking wif u, oni...", "ham")
    assert len(rows) == 3
    check_parts(path, text_column="1", label_column="0")


def test_a_column_that_is_named_by_a_number_is_no_position(tmp_path: Path) -> None:
    """As pandas names them."""
    path = save(tmp_path / "a.csv", "1,0\nx,good\ny,bad\n")
    assert pairs(read_path(path, text_column="0", label_column="1")) == [("good", "x"), ("bad", "y")]


def test_a_position_that_is_not_there_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.csv", "x,good\ny,bad\n")
    with pytest.raises(DataError, match=r"no column '2'\. Columns found: '0', '1'\. Set `data\.text_column` to one of"):
        read_path(path, text_column="2", label_column="0")
    with pytest.raises(DataError, match=r"no column 'words'\. Columns found: 'label', 'text'\."):
        read_path(path, text_column="words", columns=["label", "text"])


def test_a_row_of_another_width_is_a_fault_that_says_what_was_expected(tmp_path: Path) -> None:
    path = save(tmp_path / "a.csv", "x,good\ny,bad,more\n")
    assert read_path(path, columns=["label", "text"])[1].fault == "`data.columns` names 2 fields, this row 3"
    assert read_path(path, text_column="1", label_column="0")[1].fault == "the first row has 2 fields, this row 3"


def test_an_empty_file_without_a_header_is_empty(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.csv is empty\.$"):
        read_path(save(tmp_path / "a.csv", "\n"), columns=["label", "text"])


@pytest.mark.parametrize("columns", [[], ["a", "a"]])
def test_columns_are_named_once_each(columns: list[str]) -> None:
    with pytest.raises(ValueError, match="`columns` must name each column once"):
        DataSection(columns=columns)


@pytest.mark.parametrize(
    ("name", "label", "text", "rows"),
    [("SMSSpamCollection", "ham", "Go until jurong point", 5574)],
)
def test_a_published_file_without_a_header_reads_whole(
    real_data: Path, name: str, label: str, text: str, rows: int
) -> None:
    found = pairs(read_path(real_data / "raw_formats" / name, format="tsv", columns=["label", "text"]))
    assert len(found) == rows
    assert found[0][1] == label
    assert found[0][0].startswith(text)


# ---- what `raylora init` finds out


@pytest.mark.parametrize("delimiter", ["::", "^", "~", "||", "\x01"])
def test_init_finds_an_odd_delimiter(tmp_path: Path, delimiter: str) -> None:
    rows = [(f"a rather long text {i}", ("good", "bad")[i % 2]) for i in range(8)]
    content = "".join(delimiter.join(row) + "\n" for row in [("review", "label"), *rows])
    path = save(tmp_path / "a.txt", content)
    job = jobfile.read([str(write_config(str(path), str(tmp_path / "job.yaml")))], {})
    assert (job.data.delimiter, job.data.text_column, job.data.columns) == (delimiter, "review", None)
    assert pairs(read_path(path, **{k: getattr(job.data, k) for k in ("delimiter", "text_column")})) == rows


def test_init_names_the_columns_of_a_file_without_a_header(tmp_path: Path) -> None:
    path = save(tmp_path / "a.txt", HEADLESS * 2)
    job = jobfile.read([str(write_config(str(path), str(tmp_path / "job.yaml")))], {})
    assert job.data.columns == ["label", "text"]
    assert [row.label for row in read_path(path, columns=job.data.columns)] == ["ham", "spam", "ham"] * 2


@pytest.mark.parametrize("content", ["\n\n\na,b,c;x\nd;y\ne;x\n", "a, b\tx\nc\ty\nd\tx\n"])
def test_every_part_is_cut_by_what_tells_the_cells_of_the_whole_file(tmp_path: Path, content: str) -> None:
    """A first part may hold nothing but blank lines, or one row that looks cut by commas."""
    path = save(tmp_path / "a.csv", content)
    assert [row.label for row in read_path(path, columns=["text", "label"])] == ["x", "y", "x"]
    check_parts(path, columns=["text", "label"])
