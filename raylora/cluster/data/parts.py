"""Where a large file is cut, so that many tasks read it: between rows, never inside one. Knows no ray."""

import csv
import math
from collections.abc import Iterator
from typing import IO

from raylora.cluster.data.formats import csv_reader, open_table, read_header
from raylora.cluster.data.rows import Part, Source
from raylora.cluster.data.sources import BOM, open_input, open_text

BY_LINES = ("csv", "tsv", "jsonl")


def cut(source: Source, part_bytes: int) -> list[Part]:
    """The parts of a file, each of about `part_bytes`: reading them in order is reading the file.

    Text is read once for it, as fast as rows can be told apart: where a csv's quotes leave a line end inside a cell is
    known only from its start, and so are line numbers. json and the hub are not cut.

    Raises:
        DataError: the file cannot be read.
    """
    if source.format in BY_LINES:
        return _cut_text(source, part_bytes)
    return _cut_table(source, part_bytes) if source.format == "parquet" else [Part()]


def _cut_text(source: Source, part_bytes: int) -> list[Part]:
    parts: list[Part] = []
    start = before = size = 0
    with open_input(source.path) as stream:
        bom = len(BOM) if stream.read(len(BOM)) == BOM else 0
    # latin-1: a character a byte; what tells rows apart is ASCII, and no part of another character in UTF-8
    with open_text(source.path, Part(start=bom), encoding="latin-1") as text:
        for size, lines in _row_ends(source, text, bom):
            if size - start >= part_bytes:
                parts.append(Part(start, size, before))
                start, before = size, lines
    return [*parts, Part(start, None, before)] if start < size or not parts else parts


def _row_ends(source: Source, text: IO[str], size: int) -> Iterator[tuple[int, int]]:
    """Bytes and lines of the file up to the end of each row, broken ones too: of the same reader that reads them."""
    lines = 0

    def counted() -> Iterator[str]:
        nonlocal size, lines
        for line in text:
            size += len(line)
            lines += 1
            yield line

    rows: Iterator[object] = counted()
    if source.format != "jsonl":
        rows = csv_reader(source.format, counted(), read_header(source.path, source.format, text).delimiter)
        next(filter(None, rows))  # the header belongs to the first part
    while True:
        try:
            next(rows)
        except StopIteration:
            return
        except csv.Error:
            pass
        yield size, lines


def _cut_table(source: Source, part_bytes: int) -> list[Part]:
    """Between row groups, and inside those larger than a part: pandas writes a million rows into one."""
    with open_input(source.path) as stream:
        metadata = open_table(source.path, stream).metadata
    cuts, filled, row = [0], 0, 0
    for i in range(metadata.num_row_groups):
        group = metadata.row_group(i)
        if filled and filled + group.total_byte_size > part_bytes:
            cuts.append(row)
            filled = 0
        pieces = math.ceil(group.total_byte_size / part_bytes)
        cuts += [row + group.num_rows * piece // pieces for piece in range(1, pieces)]
        filled += group.total_byte_size // max(pieces, 1)
        row += group.num_rows
    cuts = sorted(set(cuts))
    return [Part(start, end, start) for start, end in zip(cuts, [*cuts[1:], row], strict=True)]
