"""Readers of every format: rows in order, with every fault named by place. Knows no ray."""

import csv
import json
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet

from raylora.cluster.data.rows import Row, Source, check_row
from raylora.config import DataSection
from raylora.errors import DataError

if TYPE_CHECKING:
    from _csv import Reader

LONGEST_CELL = 2**27  # bytes; csv's own limit of 128 KiB refuses long documents


def _columns(source: Source, found: list[str], data: DataSection) -> list[int]:
    """Positions of the text, label and pair columns.

    Raises:
        DataError: a column is missing; names the ones there are.
    """
    wanted = {"data.text_column": data.text_column, "data.label_column": data.label_column}
    if data.text_pair_column:
        wanted["data.text_pair_column"] = data.text_pair_column
    for key, name in wanted.items():
        if name not in found:
            shown = ", ".join(repr(column[:40]) for column in found[:20])
            raise DataError(f"{source.path} has no column '{name}'. Columns found: {shown}. Set `{key}`.")
    return [found.index(name) for name in wanted.values()]


def csv_rows(source: Source, text: IO[str], data: DataSection) -> Iterator[Row]:
    names = read_header(source.path, source.format, text)
    positions = _columns(source, names, data)
    reader = csv_reader(source.format, text)
    next(reader)
    while True:
        place = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield Row(place, fault=f"broken row: {error}")
            continue
        if not cells:
            continue
        if len(cells) != len(names):
            yield Row(place, fault=f"the header has {len(names)} fields, this row {len(cells)}")
            continue
        yield check_row(place, [cells[i] for i in positions], data)


def csv_reader(kind: str, text: IO[str]) -> "Reader":
    """Rows from the start of a csv (delimiter by its first line, quotes checked) or tsv (quotes taken literally)."""
    csv.field_size_limit(LONGEST_CELL)
    text.seek(0)
    first = text.readline()
    text.seek(0)
    if kind == "tsv":
        return csv.reader(text, delimiter="\t", quoting=csv.QUOTE_NONE)
    return csv.reader(text, delimiter=max(",;\t|", key=first.count), strict=True)


def read_header(path: str, kind: str, text: IO[str]) -> list[str]:
    """Column names of a csv or tsv.

    Raises:
        DataError: there are none.
    """
    try:
        names = [name.strip() for name in next(csv_reader(kind, text), [])]
    except csv.Error as error:
        raise DataError(f"{path}: the header cannot be read: {error}.") from None
    if not any(names):
        raise DataError(f"{path} is empty: a {kind} file starts with a line of column names.")
    return names


def jsonl_rows(source: Source, text: IO[str], data: DataSection) -> Iterator[Row]:
    for place, line in enumerate(text, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield Row(place, fault=f"not JSON: {error}")
            continue
        yield _record(place, record, data)


def json_rows(source: Source, text: IO[str], data: DataSection) -> Iterator[Row]:
    content = text.read()
    if not content.strip():
        raise DataError(f"{source.path} is empty.")
    try:
        records = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{source.path} is not JSON: {error}. One object per line? Set data.format=jsonl.") from None
    if not isinstance(records, list):
        raise DataError(f"{source.path} must hold a list of objects, found {type(records).__name__}.")
    for place, record in enumerate(records, 1):
        yield _record(place, record, data)


def _record(place: int, record: Any, data: DataSection) -> Row:
    if not isinstance(record, dict):
        return Row(place, fault=f"must be an object, found {type(record).__name__}")
    names = [data.text_column, data.label_column, *([data.text_pair_column] if data.text_pair_column else [])]
    missing = [name for name in names if name not in record]
    if missing:
        return Row(place, fault=f"'{missing[0]}' is missing; keys found: {', '.join(map(repr, list(record)[:10]))}")
    return check_row(place, [record[name] for name in names], data)


def parquet_rows(source: Source, stream: IO[bytes], data: DataSection) -> Iterator[Row]:
    try:
        file = pyarrow.parquet.ParquetFile(stream)
        columns = file.schema_arrow.names
        positions = _columns(source, columns, data)
        for i in positions:
            _check_plain(source.path, columns[i], file.schema_arrow.field(i).type)
        place = 0
        for batch in file.iter_batches(4096, columns=[columns[i] for i in positions]):
            ordered = [batch.column(columns[i]).to_pylist() for i in positions]
            for values in zip(*ordered, strict=True):
                place += 1
                yield check_row(place, list(values), data)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{source.path} is not readable as parquet: {error}") from None


def _check_plain(path: str, column: str, kind: pa.DataType) -> None:
    """Ray Data teaches Arrow a type of pickled objects: reading one value of it runs whatever the file's author wrote.

    Raises:
        DataError: the column is of an extension type, or holds one.
    """
    inner = [kind.field(i).type for i in range(kind.num_fields)]
    if isinstance(kind, pa.DictionaryType):
        inner.append(kind.value_type)
    if isinstance(kind, pa.BaseExtensionType):
        raise DataError(f"{path}: column '{column}' is of the type {kind}, not text or a number. It is not read.")
    for each in inner:
        _check_plain(path, column, each)


def hub_rows(source: Source, data: DataSection) -> Iterator[Row]:
    """`hf://org/name` or `hf://org/name/split`, through `datasets` (its split defaults to the job's)."""
    import datasets

    name = source.path.removeprefix("hf://").removeprefix("datasets/")
    name, split = (name.rpartition("/")[0], name.rpartition("/")[2]) if name.count("/") > 1 else (name, source.split)
    try:
        table: Any = datasets.load_dataset(name, split=split)
    except Exception as error:  # noqa: BLE001 - the hub client raises many types, all meaning "not to be had"
        raise DataError(
            f"{source.path} (split '{split}') cannot be loaded from the hub: {error}. Where there is no hub, set "
            f"`data.{source.split}` to a file, and data.text_column and data.label_column to columns of it."
        ) from None
    positions = _columns(source, list(table.column_names), data)
    names = [table.column_names[i] for i in positions]
    feature = table.features[names[1]]
    for place, record in enumerate(table, 1):
        values = [record[column] for column in names]
        if isinstance(feature, datasets.ClassLabel) and values[1] is not None:
            values[1] = feature.int2str(values[1])
        yield check_row(place, values, data)
