"""Where a large file is cut, so that many tasks read it: between rows, never inside one. Knows no ray."""

import csv
import math
from collections.abc import Iterator
from typing import TextIO

import pyarrow as pa

from raylora.cluster.data.delimited import Header, Rows, read_header
from raylora.cluster.data.encodings import can_be_cut
from raylora.cluster.data.rows import BY_LINES, Part, Source
from raylora.cluster.data.sources import HEADER_BYTES
from raylora.cluster.data.streams import open_bytes_as_text, open_input, open_text
from raylora.cluster.data.tables import FAULTS, open_arrow, open_parquet
from raylora.cluster.data.text_folders import cut_folder
from raylora.cluster.data.unpack import packing_of
from raylora.config import DataSection
from raylora.errors import DataError


def cut(source: Source, data: DataSection, part_bytes: int) -> list[Part]:
    """The parts of a file, each of about `part_bytes`: reading them in order is reading the file.

    Text is read once for it, as fast as rows can be told apart: where a csv's quotes leave a line end inside a cell is
    known only from its start, and so are line numbers. json, Arrow streams, compressed files, text in an encoding whose
    line ends cannot be told byte by byte, and the hub are not cut.

    Raises:
        DataError: the file cannot be read.
    """
    if source.format == "text":
        return cut_folder(source, part_bytes)
    if packing_of(source.path):
        return [Part()]
    if source.format in BY_LINES:
        return _cut_text(source, part_bytes, data)
    if source.format == "arrow":
        return _cut_arrow(source, part_bytes)
    return _cut_table(source, part_bytes) if source.format == "parquet" else [Part()]


def _cut_text(source: Source, part_bytes: int, data: DataSection) -> list[Part]:
    with open_text(source.path, Part(end=HEADER_BYTES), data.encoding) as head:
        encoding = head.encoding
        if not can_be_cut(encoding):
            return [Part()]
        header = None if source.format == "jsonl" else read_header(source.path, source.format, head, data)
    parts: list[Part] = []
    start = before = size = 0
    with open_bytes_as_text(source.path) as text:
        bom = text.buffer.start  # pyright: ignore[reportAttributeAccessIssue]
        for size, lines in _row_ends(text, header, encoding, bom):
            if size - start >= part_bytes:
                parts.append(Part(start, size, before))
                start, before = size, lines
    return [*parts, Part(start, None, before)] if start < size or not parts else parts


def _row_ends(text: TextIO, header: Header | None, encoding: str, size: int) -> Iterator[tuple[int, int]]:
    """Bytes and lines of the file up to the end of each row, broken ones too: of the same reader that reads them."""
    lines = 0

    def counted() -> Iterator[str]:
        nonlocal size, lines
        for line in text:
            size += len(line)
            lines += 1
            yield line

    rows: Iterator[object] = counted()
    if header:
        rows = Rows(counted(), header.dialect.in_bytes(encoding))
        if not header.is_row:
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
        metadata = open_parquet(source.path, stream).metadata
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


def _cut_arrow(source: Source, part_bytes: int) -> list[Part]:
    """Between record batches."""
    with open_input(source.path) as stream:
        reader = open_arrow(source.path, stream)
        if not isinstance(reader, pa.RecordBatchFileReader):
            return [Part()]
        try:
            batches = map(reader.get_batch, range(reader.num_record_batches))
            sizes = [(batch.nbytes, batch.num_rows) for batch in batches]
        except FAULTS as error:
            raise DataError(f"{source.path} is not readable as arrow: {error}") from None
    parts: list[Part] = []
    start = before = filled = rows = 0
    for i, (size, count) in enumerate(sizes, 1):
        filled, rows = filled + size, rows + count
        if filled >= part_bytes:
            parts.append(Part(start, i, before))
            start, before, filled = i, rows, 0
    return [*parts, Part(start, None, before)] if start < len(sizes) or not parts else parts
