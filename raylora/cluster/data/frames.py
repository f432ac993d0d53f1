"""Rows that a Python program holds: of pandas, pyarrow, polars, `datasets`, Ray Data, or a list of dicts.

They become a jsonl file in the run's folder, which every node sees, and are read from there like any other: with the
same checks, and a bad row is the line of its number. JSON, since a column of pandas may hold anything, row by row.
"""

import hashlib
import json
import math
import tempfile
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from itertools import chain
from typing import IO, Any, cast

import pyarrow as pa

from raylora.cluster.data.columns import positions_of, wanted_columns
from raylora.cluster.data.folders import split_of
from raylora.cluster.data.rows import Split
from raylora.cluster.data.tables import label_names, named_labels, to_values
from raylora.cluster.storage.filesystem import Location
from raylora.config import DataSection
from raylora.errors import DataError
from raylora.tasks.parsed import plain

ROWS_AT_ONCE = 4096
PIECE = 2**22  # bytes
UNWRITABLE = (TypeError, ValueError, RecursionError)  # a dict's key that is no text, an int of 4,300 digits, a circle
TABLES = ("pandas", "polars")  # of columns by their names


def splits_of(data: Any) -> dict[Split, Any] | None:
    """The splits of a `datasets.DatasetDict`, by their keys; None of all else.

    Raises:
        DataError: no key names a split.
    """
    if _library(data) != "datasets" or not isinstance(data, Mapping):
        return None
    found: dict[Split, Any] = {}
    for name, each in cast(Mapping[Any, Any], data).items():
        split = split_of(str(name))
        if split:
            found[split] = each
    if not found:
        raise DataError(f"the {kind_of(data)} has the keys {', '.join(map(str, data))}, none that names a split.")
    return found


def of_split(data: Any, split: Split) -> Any:
    """The rows of a split: what is passed for it, or of a `datasets.DatasetDict` its own.

    Raises:
        DataError: no key names the split.
    """
    held = splits_of(data)
    if held is None:
        return data
    if split not in held:
        raise DataError(f"the {kind_of(data)} has the keys {', '.join(map(str, data))}, none that names {split}.")
    return held[split]


def kind_of(data: Any) -> str:
    """What people call it: pandas.DataFrame."""
    library = _library(data)
    return type(data).__name__ if library == "builtins" else f"{library}.{type(data).__name__}"


def save(data: Any, folder: Location, split: Split, section: DataSection) -> str:
    """Write rows as a jsonl file of this folder, named for their split and content, unless it is there.

    Returns:
        Its address.

    Raises:
        DataError: it is nothing that holds rows, or lacks a column.
    """
    with tempfile.TemporaryFile() as file:
        digest = _write(_records(data, section), file)
        place = folder.inside(f"{split}-{digest[:16]}.jsonl")
        if not place.exists():
            _copy(file, place)
    return place.address


def _write(records: Iterable[Any], file: IO[bytes]) -> str:
    digest = hashlib.sha256()
    file.write(BOM_UTF8)  # surer than `data.encoding`, which is of other files
    for record in records:
        line = f"{_as_json(record)}\n".encode()
        digest.update(line)
        file.write(line)
    return digest.hexdigest()


def _as_json(record: Any) -> str:
    """A record, without those values that JSON cannot hold even so: they are the faults of their row."""
    try:
        return json.dumps(record, default=_odd)
    except UNWRITABLE:
        values = dict(record) if isinstance(record, Mapping) else {"": record}
        return json.dumps({name: value if _is_json(value) else {_kind(value): ""} for name, value in values.items()})


def _is_json(value: Any) -> bool:
    try:
        return bool(json.dumps(value))
    except UNWRITABLE:
        return False


def _copy(file: IO[bytes], place: Location) -> None:
    """It appears under its name only when it is whole."""
    place.parent.make_folder()
    part = f"{place.path}.part"
    file.seek(0)
    with place.filesystem.open_output_stream(part, compression=None) as stream:
        while piece := file.read(PIECE):
            stream.write(piece)
    place.filesystem.move(part, place.path)


def _records(data: Any, section: DataSection) -> Iterator[Any]:
    """A dict of the wanted columns for each row; of one that lacks some, as it is.

    Raises:
        DataError: as `save`.
    """
    library = _library(data)
    if library == "polars" and hasattr(data, "collect"):  # a lazy one
        data = data.collect()
    if library in TABLES and hasattr(data, "columns"):
        return _of_columns(data, section)
    if library == "pyarrow" and hasattr(data, "schema"):
        return _of_batches(data, getattr(data, "schema_arrow", data.schema), _batches(data), section)
    if library == "datasets" and getattr(data, "features", None):  # else a stream that does not know its columns
        return _of_datasets(data, section)
    if library == "ray" and hasattr(data, "iter_batches"):
        return _of_ray(data, section)
    if isinstance(data, Mapping):
        return _of_columns(data, section)
    if isinstance(data, Iterable) and library not in TABLES and not isinstance(data, str | bytes):
        return _of_dicts(data, section)
    raise DataError(
        f"rows cannot be taken from a {kind_of(data)}. Pass a path, a table of pandas, pyarrow, polars, datasets or "
        "ray.data, or a list of dicts."
    )


def _of_columns(data: Any, section: DataSection) -> Iterator[dict[str, Any]]:
    """Of what yields a column by its name: pandas, polars, a dict of lists."""
    own = {str(name): name for name in (data if isinstance(data, Mapping) else data.columns)}
    names = _wanted(data, [str(name) for name in (data if isinstance(data, Mapping) else data.columns)], section)
    columns = [data[own[name]] for name in names]
    for name, column in zip(names, columns, strict=True):
        if isinstance(column, str | bytes) or not hasattr(column, "__len__"):
            raise DataError(f"column '{name}' of the {kind_of(data)} is a {_kind(column)}. Pass a list, a value a row.")
    if len({len(column) for column in columns}) > 1:
        raise DataError(f"the columns of the {kind_of(data)} are of different lengths.")
    values = (column.to_list() if hasattr(column, "to_list") else column for column in columns)
    return (dict(zip(names, map(_plain, row), strict=True)) for row in zip(*values, strict=True))


def _batches(data: Any) -> Iterable[Any]:
    """Of a record batch, a table or dataset, a ParquetFile, or a reader."""
    if isinstance(data, pa.RecordBatch):
        return [data]
    cut = getattr(data, "to_batches", None) or getattr(data, "iter_batches", None)
    return cut() if cut else data


def _of_batches(data: Any, schema: pa.Schema, batches: Iterable[Any], section: DataSection) -> Iterator[dict[str, Any]]:
    names = _wanted(data, schema.names, section)
    known = label_names(schema)
    return chain.from_iterable(_of_batch(batch, names, known, section) for batch in batches)


def _of_batch(
    batch: Any, names: Sequence[str], known: Mapping[str, Sequence[str]], section: DataSection
) -> Iterator[dict[str, Any]]:
    columns = [to_values(batch.column(name)) for name in names]
    for row in zip(*columns, strict=True):
        record = dict(zip(names, map(_plain, row), strict=True))
        if section.label_column in known:
            label = record[section.label_column]
            record[section.label_column] = named_labels(label, known[section.label_column], section)
        yield record


def _of_datasets(data: Any, section: DataSection) -> Iterator[dict[str, Any]]:
    """Of a Dataset, or an IterableDataset."""
    names = _wanted(data, data.column_names, section)
    table = data.select_columns(list(dict.fromkeys(names))).with_format("arrow")
    schema = data.features.arrow_schema  # with the names of labels
    batches: Any = table.iter(ROWS_AT_ONCE)
    return chain.from_iterable(_of_batch(batch, names, label_names(schema), section) for batch in batches)


def _of_ray(data: Any, section: DataSection) -> Iterator[dict[str, Any]]:
    names = _wanted(data, data.columns(), section)
    table = data.select_columns(list(dict.fromkeys(names)))
    table.context.execution_options.preserve_order = True  # a row's number is its place
    batches: Any = table.iter_batches(batch_size=ROWS_AT_ONCE, batch_format="pyarrow")
    return chain.from_iterable(_of_batch(batch, names, {}, section) for batch in batches)


def _of_dicts(data: Iterable[Any], section: DataSection) -> Iterator[Any]:
    names = list(wanted_columns(section).values())
    for record in data:
        whole = isinstance(record, Mapping) and all(name in record for name in names)
        lacking = dict.fromkeys(map(str, record)) if isinstance(record, Mapping) else record
        yield {name: _plain(record[name]) for name in names} if whole else lacking


def _wanted(data: Any, found: Sequence[str], section: DataSection) -> list[str]:
    return [found[i] for i in positions_of(f"the {kind_of(data)}", list(found), section)]


def _plain(value: Any) -> Any:
    """As JSON holds it: numpy's scalars and arrays as Python's, what is missing as null."""
    if isinstance(value, str | bool | int) or value is None:
        return value
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, set | frozenset):  # in an order of its own: the file is named by its content
        return sorted(map(_plain, cast(set[Any], value)), key=str)
    if isinstance(value, Decimal):
        return _plain(plain(value))
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    return None if _kind(value) in ("NAType", "NaTType") else value


def _odd(value: Any) -> Any:
    """What JSON does not know (a date) is the fault of its row, by its type."""
    if hasattr(value, "tolist"):
        return value.tolist()
    return {_kind(value): str(value)}


def _kind(value: Any) -> str:
    return type(value).__name__


def _library(data: Any) -> str:
    return type(data).__module__.partition(".")[0]
