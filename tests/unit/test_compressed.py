"""Compressed files: what is in them, whatever packed it; one that is broken is one clear error."""

import bz2
import gzip
import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from datafiles import pairs, read_path

from raylora.cluster.data.guess import write_config
from raylora.cluster.data.parts import cut
from raylora.cluster.data.sources import list_sources
from raylora.config import DataSection
from raylora.config import file as jobfile
from raylora.errors import DataError

TEXT = 'text,label\n"a, ""quoted""\nand 😀",x\nnul \0 here,y\n'
ROWS = [('a, "quoted"\nand 😀', "x"), ("nul \0 here", "y")]


def zipped(content: bytes, *names: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names or ("rows.csv",):
            archive.writestr(name, content)
    return stream.getvalue()


def zstd(content: bytes) -> bytes:
    return pa.compress(content, codec="zstd", asbytes=True)


PACK: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".zst": zstd,
    ".zip": zipped,
}


@pytest.mark.parametrize("ending", [*PACK, ".GZ", ".Zip"])
def test_a_compressed_file_is_the_file(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.csv{ending}"
    path.write_bytes(PACK[ending.lower()](TEXT.encode()))
    assert pairs(read_path(path)) == ROWS
    section = DataSection(train=str(path))
    assert len(cut(list_sources(section)[0], section, 1)) == 1, "what is packed cannot be cut"


@pytest.mark.parametrize("ending", [".gz", ".bz2", ".zst"])
def test_a_file_packed_in_pieces_is_read_to_its_end(tmp_path: Path, ending: str) -> None:
    """As `cat a.gz b.gz > c.gz` leaves it, and parallel compressors do."""
    head, tail = TEXT.encode()[:20], TEXT.encode()[20:]
    (tmp_path / f"a.csv{ending}").write_bytes(PACK[ending](head) + PACK[ending](tail))
    assert pairs(read_path(tmp_path / f"a.csv{ending}")) == ROWS


@pytest.mark.parametrize("ending", [".gz", ".bz2", ".zst"])
@pytest.mark.parametrize("how", ["broken", "cut"])
def test_no_row_is_lost_without_a_word_where_a_later_piece_is_broken(tmp_path: Path, ending: str, how: str) -> None:
    head, tail = PACK[ending](TEXT.encode()), PACK[ending](TEXT.encode())
    (tmp_path / f"a.csv{ending}").write_bytes(head + (b"X" + tail[1:] if how == "broken" else tail[:-6]))
    with pytest.raises(DataError, match=rf"a\.csv\{ending} cannot be unpacked: .*Is it whole"):
        read_path(tmp_path / f"a.csv{ending}")


def test_an_empty_piece_of_a_bz2_is_no_end(tmp_path: Path) -> None:
    pieces = [TEXT.encode()[:20], b"", TEXT.encode()[20:], b""]
    (tmp_path / "a.csv.bz2").write_bytes(b"".join(map(bz2.compress, pieces)))
    assert pairs(read_path(tmp_path / "a.csv.bz2")) == ROWS


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_of_any_method_is_read_or_one_clear_error(tmp_path: Path, method: int) -> None:
    path = tmp_path / "a.csv.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("a.csv", TEXT)
    assert pairs(read_path(path)) == ROWS
    whole = bytearray(path.read_bytes())
    middle = len("a.csv") + 30 + 20  # bytes of the zip's header, and some of the member
    whole[middle : middle + 8] = bytes(byte ^ 0xFF for byte in whole[middle : middle + 8])
    path.write_bytes(whole)
    with pytest.raises(DataError, match=r"a\.csv\.zip cannot be unpacked: .*Is it whole"):
        read_path(path)


@pytest.mark.parametrize("ending", PACK)
def test_a_long_compressed_file_is_read_in_pieces_and_its_header_once(tmp_path: Path, ending: str) -> None:
    rows = 400_000
    content = b"text,label\n" + b"some words,x\n" * rows
    (tmp_path / f"a.csv{ending}").write_bytes(PACK[ending](content))
    found = read_path(tmp_path / f"a.csv{ending}")
    assert len(found) == rows
    assert (found[-1].place, found[-1].label) == (rows + 1, "x")


@pytest.mark.parametrize("ending", PACK)
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.parquet", "a.feather", "a.arrow"])
def test_every_format_may_be_compressed(tmp_path: Path, name: str, ending: str) -> None:
    table = pa.table({"text": ["a\n😀", "b"], "label": ["x", "y"]})
    stream = io.BytesIO()
    if name.endswith("parquet"):
        pq.write_table(table, stream)
    elif name.endswith("feather"):
        pa.feather.write_feather(table, stream)
    elif name.endswith("arrow"):
        with pa.ipc.new_stream(stream, table.schema) as writer:
            writer.write_table(table)
    elif name.endswith("jsonl"):
        stream.write(b'{"text": "a\\n\\ud83d\\ude00", "label": "x"}\n{"text": "b", "label": "y"}')
    else:
        stream.write(b'{"text": ["a\\n\\ud83d\\ude00", "b"], "label": ["x", "y"]}')
    packed = zipped(stream.getvalue(), name) if ending == ".zip" else PACK[ending](stream.getvalue())
    (tmp_path / f"{name}{ending}").write_bytes(packed)
    assert pairs(read_path(tmp_path / f"{name}{ending}")) == [("a\n😀", "x"), ("b", "y")]


def test_a_zip_is_of_the_format_of_its_file(tmp_path: Path) -> None:
    content = zipped(
        b'{"text": "a", "label": "x"}\n', "deep/rows.jsonl", "__MACOSX/deep/._rows.jsonl", "deep/.DS_Store"
    )
    (tmp_path / "reviews.zip").write_bytes(content)
    assert pairs(read_path(tmp_path / "reviews.zip")) == [("a", "x")]


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (("a.csv", "b.csv"), r"a\.zip holds 2 files: a\.csv, b\.csv; a zip is read that holds exactly one\. Unpack it"),
        (("__MACOSX/a.csv",), r"a\.zip holds 0 files; a zip is read"),
        (("a.docx",), r"a\.zip: the ending '\.docx' tells no format"),
    ],
)
def test_a_zip_of_anything_but_one_file_is_refused(tmp_path: Path, names: tuple[str, ...], told: str) -> None:
    (tmp_path / "a.zip").write_bytes(zipped(TEXT.encode(), *names))
    with pytest.raises(DataError, match=told):
        read_path(tmp_path / "a.zip")


@pytest.mark.parametrize("ending", PACK)
@pytest.mark.parametrize("how", ["cut", "garbled", "not packed", "empty"])
def test_a_broken_compressed_file_is_one_clear_error(tmp_path: Path, ending: str, how: str) -> None:
    packed = PACK[ending](TEXT.encode() * 200)
    middle = len(packed) // 2
    content = {
        "cut": packed[:middle],
        "garbled": packed[:middle] + bytes(b ^ 0xFF for b in packed[middle:]),
        "not packed": TEXT.encode(),
        "empty": b"",
    }[how]
    (tmp_path / f"a.csv{ending}").write_bytes(content)
    with pytest.raises(DataError, match=rf"a\.csv\{ending} (cannot be unpacked: .*Is it whole|is empty)"):
        read_path(tmp_path / f"a.csv{ending}")


def test_a_zip_with_a_password_says_so(tmp_path: Path) -> None:
    content = bytearray(zipped(TEXT.encode()))
    for mark, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(mark) + flags] |= 1  # the flag of an encrypted member
    (tmp_path / "a.csv.zip").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.csv\.zip needs a password\. Unpack it\."):
        read_path(tmp_path / "a.csv.zip")


def test_a_folder_may_hold_both_kinds(tmp_path: Path) -> None:
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"text,label\na,x\n"))
    (tmp_path / "b.csv").write_bytes(b"text,label\nb,y\n")
    (tmp_path / "backup.zip").write_bytes(zipped(b"", "x", "y"))
    assert pairs(read_path(tmp_path)) == [("a", "x"), ("b", "y")]


def test_init_names_the_config_of_a_compressed_file_by_its_stem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.csv.gz").write_bytes(gzip.compress(b"review,label\n" + b"a long text,x\nanother one,y\n" * 3))
    monkeypatch.chdir(tmp_path)
    path = write_config("mine.csv.gz", None)
    assert path == Path("mine.yaml")
    assert jobfile.read([str(path)], {}).data.text_column == "review"
