"""A file read in parts yields the rows, faults and places that it yields whole, wherever it is cut."""

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raylora.cluster.data.parts import cut
from raylora.cluster.data.rows import Row, Source
from raylora.cluster.data.sources import list_sources, read_rows
from raylora.cluster.storage.filesystem import Location
from raylora.config import DataSection

ROWS = (
    'one,x\n"two, and\nstill ""two""",y\n\nthree,x\n"",x\nfour\n"five" odd,x\n5" screen,y\n'
    '"six\r\n\r\nseven",x\nö é,y\n'
)
REAL = ["reviews_dirty.csv", "reviews_crlf.csv", "reviews_utf8_bom.csv", "tweets_emoji.jsonl"]
TEXTS = {
    "plain.csv": "text,label\n" + "".join(f"text {i},{'xy'[i % 2]}\n" for i in range(40)),
    "quotes.csv": "text,label\n" + ROWS * 5,
    "crlf.csv": "text,label\r\n" + ROWS.replace("\n", "\r\n").replace("\r\r", "\r") * 5,
    "mac.csv": "text,label\r" + "a,x\r" * 20,
    "mixed.csv": "text,label\n" + "a,x\r\nb,y\rc,x\n" * 10,
    "bom.csv": '\ufeff"text\n1","label"\n' + ROWS * 3,
    "unclosed.csv": "text,label\n" + ROWS * 3 + '"never closed,x\n' + ROWS.replace('"', "") * 3,
    "semicolons.csv": '"a;b";label;text\n' + '1;x;"a\nb"\n' * 20,
    "blank.csv": "\n\ntext,label\n\n\n" + "\n\na,x\n\n" * 10,
    "no_end.csv": "text,label\n" + "a,x\n" * 10 + "b,y",
    "literal.tsv": 'text\tlabel\n"open\tx\nclose"\ty\n\nb\tx\ty\n' + 'say "hi\tx\n' * 20,
    "rows.jsonl": "".join(json.dumps({"text": f"t{i}\n\u2028", "label": i % 2}) + "\n" * (i % 3 + 1) for i in range(30))
    + '{"text": 5, "label": 1}\nnot JSON\n{"text": "last", "label": 1}',
    "bom.jsonl": "\ufeff\n" + '{"text": "\u00e9\ud83d", "label": 1}\r\n' * 20,
    "rows.json": json.dumps([{"text": f"t{i}", "label": i % 2} for i in range(30)]),
}
TEXT_KEYS = {"bom.csv": "text\n1"}


def source_of(path: Path) -> tuple[Source, DataSection]:
    section = DataSection(train=str(path), text_column=TEXT_KEYS.get(path.name, "text"))
    return list_sources(section)[0], section


def in_parts(source: Source, section: DataSection, part_bytes: int) -> list[list[Row]]:
    return [list(read_rows(source, section, part)) for part in cut(source, section, part_bytes)]


def flat(parts: list[list[Row]]) -> list[Row]:
    return [row for part in parts for row in part]


@pytest.mark.parametrize("name", TEXTS)
def test_parts_of_a_text_file_are_the_whole_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(TEXTS[name].encode("utf-8", "surrogatepass"))
    source, section = source_of(tmp_path / name)
    whole = list(read_rows(source, section))
    assert whole
    for part_bytes in (1, 7, 16, 33, 100, 250, 10**6):
        assert flat(in_parts(source, section, part_bytes)) == whole, part_bytes
    assert len(cut(source, section, 10**6)) == 1


def test_parts_are_no_larger_than_they_must_be(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\n" + '"a\nb",x\n' * 1000)  # 8 bytes a row
    source, section = source_of(tmp_path / "a.csv")
    parts = in_parts(source, section, 800)
    assert [len(part) for part in parts] == [99, *[100] * 9, 1]
    assert parts[3][0].place == 2 + 2 * 299


def test_a_part_begins_at_a_row_though_a_cell_is_longer_than_it(tmp_path: Path) -> None:
    cell = "line\n" * 500
    (tmp_path / "a.csv").write_text(f'text,label\na,x\n"{cell}",y\nb,x\n"{cell}",y\nc,x\n')
    source, section = source_of(tmp_path / "a.csv")
    parts = in_parts(source, section, 100)
    assert [[row.place for row in part] for part in parts] == [[2, 3], [504, 505], [1006]]


@pytest.mark.parametrize("group_rows", [10, 333, 1000, 5000])
def test_parts_of_a_table_are_the_whole_table(tmp_path: Path, group_rows: int) -> None:
    """Row groups larger than a part are cut, too: pandas writes one of a million rows."""
    texts = [f"text number {i}" if i % 97 else None for i in range(5000)]
    table = pa.table({"text": texts, "label": [i % 3 for i in range(5000)]})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=group_rows)
    source, section = source_of(tmp_path / "a.parquet")
    whole = list(read_rows(source, section))
    assert [row.place for row in whole] == list(range(1, 5001))
    for part_bytes in (1000, 10_000, 10**8):
        parts = in_parts(source, section, part_bytes)
        assert flat(parts) == whole
        assert (len(parts) == 1) is (part_bytes == 10**8)
        assert max(map(len, parts)) < 5000 / max(len(parts) - 1, 1) * 2, "of like size"


@pytest.mark.parametrize(
    "name", ["reviews_dirty.csv", "reviews_crlf.csv", "reviews_utf8_bom.csv", "tweets_emoji.jsonl"]
)
def test_parts_of_a_real_file_are_the_whole_file(real_data: Path, name: str) -> None:
    source, section = source_of(real_data / "dirty" / name)
    whole = list(read_rows(source, section))
    for part_bytes in (100, 3000, 15_000):
        parts = in_parts(source, section, part_bytes)
        assert flat(parts) == whole
        assert len(parts) > 1


def test_a_file_is_fetched_in_large_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On object storage each read is a request."""
    (tmp_path / "a.csv").write_text("text,label\n" + "some text,x\n" * 400_000)
    reads: list[int] = []

    class Counted(io.FileIO):
        def read(self, size: int | None = -1) -> Any:
            data = super().read(size)
            reads.append(len(data))
            return data

        def size(self) -> int:
            return (tmp_path / "a.csv").stat().st_size

    monkeypatch.setattr(Location, "open", lambda self: Counted(self.path))
    source, section = source_of(tmp_path / "a.csv")
    reads.clear()
    rows = sum(1 for _ in read_rows(source, section))
    assert rows == 400_000
    assert len(reads) < 10
    reads.clear()
    part = cut(source, section, 400_000)[1]
    reads.clear()
    assert len(list(read_rows(source, section, part))) == 33_334
    assert sum(reads) < 1_600_000, "the header and the part, not the whole file"
