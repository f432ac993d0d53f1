"""Text in other encodings: by the file's mark, or as declared; never guessed, but suggested."""

import json
from pathlib import Path

import pytest
from datafiles import ROWS, pairs, read_path

from raylora.cluster.data.guess import write_config
from raylora.cluster.data.parts import cut
from raylora.cluster.data.sources import list_sources, read_rows
from raylora.config import DataSection
from raylora.config import file as jobfile
from raylora.errors import DataError

CSV = "text,label\n" + "".join('"' + text.replace('"', '""') + f'","{label}"\n' for text, label in ROWS)
JSONL = "".join(json.dumps({"text": text, "label": label}, ensure_ascii=False) + "\n" for text, label in ROWS)
JSON = json.dumps([{"text": text, "label": label} for text, label in ROWS], ensure_ascii=False)


@pytest.mark.parametrize(("name", "content"), [("a.csv", CSV), ("a.jsonl", JSONL), ("a.json", JSON)])
@pytest.mark.parametrize(
    ("encoding", "declared"),
    [
        ("utf-8", None),
        ("utf-8-sig", None),
        ("utf-16", None),
        ("utf-32", None),
        ("utf-16-le", "utf-16-le"),
        ("utf-16-be", "UTF-16BE"),
        ("gb18030", "gb18030"),
        ("utf-7", "utf7"),
        ("utf-8-sig", "cp1252"),
        ("utf-16", "cp1252"),
    ],
)
def test_one_file_in_any_encoding_yields_the_same_rows(
    tmp_path: Path, name: str, content: str, encoding: str, declared: str | None
) -> None:
    """The last two: a byte order mark is surer than what is declared."""
    (tmp_path / name).write_bytes(content.encode(encoding))
    assert pairs(read_path(tmp_path / name, encoding=declared)) == ROWS
    section = DataSection(train=str(tmp_path / name), encoding=declared)
    (source,) = list_sources(section)
    for part_bytes in (1, 100):
        parts = cut(source, section, part_bytes)
        assert pairs([row for part in parts for row in read_rows(source, section, part)]) == ROWS
        assert len(parts) == 1 or (declared in (None, "cp1252") and encoding.startswith("utf-8"))


def test_a_file_of_one_byte_a_character_is_cut(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("text§label\n".encode("cp1252") + "é, “so”§ä\n".encode("cp1252") * 50)
    section = DataSection(train=str(tmp_path / "a.csv"), encoding="cp1252", delimiter="§")
    (source,) = list_sources(section)
    parts = cut(source, section, 100)
    assert len(parts) > 5
    assert pairs([r for part in parts for r in read_rows(source, section, part)]) == [("é, “so”", "ä")] * 50


@pytest.mark.parametrize(
    ("text", "encoding", "suggested"),
    [
        ("un café très bon", "cp1252", "data.encoding=cp1252 if it should be 'café très bon'"),
        ("“quoted” – so", "cp1252", "data.encoding=cp1252 if it should be '“quoted” – so'"),
        ("очень хорошо", "cp1251", "data.encoding=cp1251 if it should be 'очень хорошо'"),
        ("とても良い", "shift_jis", "data.encoding=shift_jis if it should be 'とても良い'"),
        ("非常好的电影", "gb18030", "data.encoding=gb18030 if it should be '非常好的电影'"),
    ],
)
def test_the_error_suggests_an_encoding_and_never_takes_it(
    tmp_path: Path, text: str, encoding: str, suggested: str
) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"text,label\n" + text.encode(encoding) + b",x\nplain,y\n")
    bad, good = read_path(path)
    assert (bad.fault or "").startswith("'text' is not UTF-8: byte 0x")
    assert suggested in (bad.fault or "")
    assert good.fault is None
    assert pairs(read_path(path, encoding=encoding)) == [(text, "x"), ("plain", "y")]


def test_a_lone_surrogate_that_json_spells_out_suggests_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "\\ud83d", "label": 1}\n')
    (row,) = read_path(tmp_path / "a.jsonl")
    assert row.fault == "'text' is not UTF-8: lone surrogate \\ud83d at character 0"


@pytest.mark.parametrize(
    ("content", "encoding", "told"),
    [
        (b"text,label\ngood,x\nbad \x81,x\nlast,x\n", "cp1252", "'text' is not CP1252: byte 0x81 at character 4"),
        (b"text,label\ngood,x\nbad,\xff\nlast,x\n", "ascii", "'label' is not ASCII: byte 0xff at character 0"),
        (
            b"text,label\ngood,x\nbad \x81 ,x\nlast,x\n",
            "shift_jis",
            "'text' is not SHIFT_JIS: byte 0x81 at character 4",
        ),
        (
            "\ufefftext,label\ngood,x\nbad \ud83d,x\nlast,x\n".encode("utf-16-le", "surrogatepass"),
            None,
            "'text' is not UTF-16: byte 0x",
        ),
    ],
)
def test_bytes_that_are_not_of_the_encoding_are_a_fault_of_their_row(
    tmp_path: Path, content: bytes, encoding: str | None, told: str
) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    first, bad, last = read_path(tmp_path / "a.csv", encoding=encoding)
    assert pairs([first, last]) == [("good", "x"), ("last", "x")]
    assert (bad.fault or "").startswith(told)


def test_a_file_that_ends_within_a_character_has_one_bad_row(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("\ufefftext,label\na,x\nb,y".encode("utf-16-le")[:-1])
    first, last = read_path(tmp_path / "a.csv")
    assert pairs([first]) == [("a", "x")]
    assert (last.fault or "").startswith("'label' is not UTF-16: byte 0x79 at character 0")


@pytest.mark.parametrize("name", ["latin-99", "", "base64", "zip", "idna", "unicode_escape", "a\0b"])
def test_what_is_no_encoding_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="`encoding` must be one that Python knows, as cp1252"):
        DataSection(encoding=name)


def test_utf16_without_a_mark_is_told_how_it_is_declared(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(CSV.encode("utf-16-be"))
    with pytest.raises(DataError, match=r"UTF-16 without a byte order mark\. Set data\.encoding=utf-16-be\."):
        read_path(path)


def test_init_suggests_an_encoding_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"review,label\n" + "un café très bon,ja\npas “bien” du tout,nein\n".encode("cp1252") * 4)
    written = write_config(str(path), str(tmp_path / "job.yaml"))
    assert jobfile.read([str(written)], {}).data.encoding == "cp1252"
    assert "# Not UTF-8: read as cp1252. Look whether it should be so." in written.read_text().splitlines()


@pytest.mark.parametrize(
    ("name", "encoding", "word"),
    [("TREC.train.latin1.txt", "latin-1", "ð"), ("rt-polarity.pos.cp1252.txt", "cp1252", "–")],
)
def test_published_files_in_their_encodings_have_no_odd_byte(
    real_data: Path, name: str, encoding: str, word: str
) -> None:
    data = {"delimiter": "\x01", "quoting": "none", "columns": ["text"], "label_column": "text"}
    rows = read_path(real_data / "raw_formats" / name, encoding=encoding, **data)
    assert not [row.fault for row in rows if row.fault]
    assert any(word in row.text for row in rows)


def test_declared_utf16_needs_a_mark_or_an_order(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(CSV.encode("utf-16-le"))
    with pytest.raises(DataError, match=r"no byte order mark\. Set data\.encoding=utf-16-le, or utf-16-be\."):
        read_path(path, encoding="utf-16")
