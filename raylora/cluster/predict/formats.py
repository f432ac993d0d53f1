"""Tables of a scored part as parquet, jsonl or csv. The same rows are the same bytes."""

import csv
import io
import json
from collections.abc import Iterator
from typing import IO, Any, Literal, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from raylora.cluster.data.tables import to_values
from raylora.cluster.predict.columns import plain_value

Format = Literal["parquet", "jsonl", "csv"]

GROUP_ROWS = 65_536


class Writer(Protocol):
    """Writes tables of one schema, one after another."""

    def write(self, table: pa.Table) -> None: ...

    def close(self) -> None: ...


def writer_of(kind: Format, file: IO[bytes], schema: pa.Schema) -> Writer:
    """Of the format `kind`; `file` stays open."""
    return {"parquet": ParquetWriter, "jsonl": JsonlWriter, "csv": CsvWriter}[kind](file, schema)


class ParquetWriter:
    """Row groups of some 65,536 rows."""

    def __init__(self, file: IO[bytes], schema: pa.Schema) -> None:
        self._writer = pq.ParquetWriter(file, schema, compression="zstd")
        self._held: list[pa.Table] = []

    def write(self, table: pa.Table) -> None:
        self._held.append(table)
        if sum(held.num_rows for held in self._held) >= GROUP_ROWS:
            self._flush()

    def _flush(self) -> None:
        if self._held:
            self._writer.write_table(pa.concat_tables(self._held), row_group_size=2 * GROUP_ROWS)
        self._held.clear()

    def close(self) -> None:
        self._flush()
        self._writer.close()


class JsonlWriter:
    """An object a line."""

    def __init__(self, file: IO[bytes], schema: pa.Schema) -> None:
        self._file, self._names = file, schema.names

    def write(self, table: pa.Table) -> None:
        for row in rows_of(table):
            line = json.dumps(dict(zip(self._names, map(plain_value, row), strict=True)), ensure_ascii=False)
            self._file.write(line.encode("utf-8", "backslashreplace") + b"\n")

    def close(self) -> None:
        self._file.flush()


class CsvWriter:
    """A header, and a line a row; nothing where a value is null, JSON where it is a list or an object."""

    def __init__(self, file: IO[bytes], schema: pa.Schema) -> None:
        self._text = io.TextIOWrapper(file, "utf-8", "backslashreplace", newline="", write_through=True)
        self._csv = csv.writer(self._text, lineterminator="\n")
        self._csv.writerow(schema.names)

    def write(self, table: pa.Table) -> None:
        self._csv.writerows(map(_cell, row) for row in rows_of(table))

    def close(self) -> None:
        self._text.flush()
        self._text.detach()


def rows_of(table: pa.Table) -> Iterator[tuple[Any, ...]]:
    """The values of each row."""
    return zip(*(to_values(column.combine_chunks()) for column in table.columns), strict=True)


def _cell(value: Any) -> Any:
    value = plain_value(value)
    if isinstance(value, bool | list | dict):
        return json.dumps(value, ensure_ascii=False)
    return value
