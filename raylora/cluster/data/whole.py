"""Rows with all that their files hold of them, some thousand at a time: what a table of predictions keeps."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, cast

import pyarrow as pa

from raylora.cluster.data.rows import Part, Row, Source
from raylora.cluster.data.sources import read_rows
from raylora.cluster.data.streams import open_table
from raylora.cluster.data.tables import whole_batches
from raylora.config import DataSection

ROWS = 4096
TYPED = ("parquet", "arrow")


@dataclass(frozen=True)
class WholeRows:
    """Neighbouring rows of a file, bad ones too. `batch` holds the columns of a file with types, row by row; of others
    each row's `record` does."""

    rows: list[Row]
    batch: pa.RecordBatch | None = None

    def good(self) -> "WholeRows":
        """Without rows that cannot be used."""
        places = [i for i, row in enumerate(self.rows) if row.fault is None]
        if len(places) == len(self.rows):
            return self
        return WholeRows([self.rows[i] for i in places], self.batch and self.batch.take(pa.array(places, pa.int64())))

    @property
    def records(self) -> list[Mapping[str, Any]]:
        """Of rows without faults, of a file without types."""
        return cast(list[Mapping[str, Any]], [row.record for row in self.rows])


def has_types(source: Source) -> bool:
    """Whether the file itself says of what type its columns are."""
    return source.format in TYPED and not source.path.startswith("hf://")


def read_chunks(source: Source, data: DataSection, part: Part, kept: Sequence[str]) -> Iterator[WholeRows]:
    """Every record of a part of a file, in order.

    Args:
        kept: columns of a file with types that are wanted beside the texts.

    Raises:
        DataError: as `read_rows`.
    """
    if has_types(source) and source.size != 0:
        with open_table(source.path) as stream:
            yield from (WholeRows(rows, batch) for rows, batch in whole_batches(source, stream, data, part, kept))
        return
    rows = read_rows(source, data, part)
    while chunk := list(islice(rows, ROWS)):
        yield WholeRows(chunk)
