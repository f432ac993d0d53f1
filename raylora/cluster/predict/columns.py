"""The columns of a scored table: those of the data, each of one type in all parts, and the predictions beside them.

A file with types keeps them. Of json and jsonl the values tell: ints beside fractions are numbers, and a column whose
values are of several kinds is text, each value in JSON. A csv is text.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from raylora.cluster.data.rows import Row
from raylora.cluster.data.tables import to_values
from raylora.cluster.data.whole import WholeRows
from raylora.errors import ConfigError
from raylora.tasks.answers import Kind

Types = dict[str, pa.DataType]

TEXT = pa.string()
KINDS: dict[Kind, pa.DataType] = {"text": TEXT, "number": pa.float64(), "texts": pa.list_(TEXT)}
FAULTS = (pa.ArrowException, TypeError, ValueError, OverflowError)


def types_of(rows: Iterable[Row], kept: Sequence[str] | None) -> Types:
    """What the records of rows hold, by column, in the order in which columns come.

    Args:
        kept: of `predict.columns`.
    """
    values: dict[str, list[Any]] = {}
    for row in rows:
        for name, value in (row.record or {}).items():
            values.setdefault(name, []).append(value)
    return {name: _type_of(found) for name, found in values.items() if kept is None or name in kept}


def _type_of(values: list[Any]) -> pa.DataType:
    try:
        return pa.array(values).type
    except FAULTS:
        return TEXT


def joined(known: Types, more: Types) -> Types:
    """Of two sets of rows together."""
    return {name: _either(known.get(name), more.get(name)) for name in dict.fromkeys([*known, *more])}


def _either(one: pa.DataType | None, other: pa.DataType | None) -> pa.DataType:
    known = [pa.schema([("", kind)]) for kind in (one, other) if kind is not None]
    try:
        return pa.unify_schemas(known, promote_options="permissive").field(0).type
    except FAULTS:
        return TEXT


def schema_of(types: Types) -> pa.Schema:
    """Of all rows; a column without a value is of texts."""
    return pa.schema([(name, TEXT if pa.types.is_null(kind) else kind) for name, kind in types.items()])


def check_free(data: pa.Schema, fields: Iterable[str], prefix: str) -> None:
    """Raises:
    ConfigError: a column of the data is named as one of the predictions.
    """
    taken = [name for name in fields if name in data.names]
    if taken:
        names = ", ".join(f"'{name}'" for name in taken)
        others = [name for name in data.names if name not in taken]
        raise ConfigError(
            f"the data has columns that the predictions also have: {names}. Set `predict.prefix` (found '{prefix}') to "
            f"name these otherwise, as predict.prefix=predicted_, or `predict.columns` to keep other columns of the "
            f"data, as predict.columns=[{', '.join(others[:5])}]."
        )


def table_of(chunk: WholeRows, schema: pa.Schema) -> pa.Table:
    """The data's columns of rows without faults, by the schema of all parts; null where a file lacks a column."""
    if chunk.batch is None:
        records = chunk.records
        columns = [_array([record.get(f.name) for record in records], f.type) for f in schema]
    else:
        columns = [_column(chunk.batch, field) for field in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def _column(batch: pa.RecordBatch, field: pa.Field) -> Any:
    if field.name not in batch.schema.names:
        return pa.nulls(batch.num_rows, field.type)
    column = batch.column(field.name)
    if column.type == field.type:
        return column
    try:
        return column.cast(field.type)
    except FAULTS:
        return _array(to_values(column), field.type)


def _array(values: list[Any], kind: pa.DataType) -> pa.Array:
    try:
        return pa.array(values, kind)
    except FAULTS:
        return pa.array([_fitted(value, kind) for value in values], kind)


def _fitted(value: Any, kind: pa.DataType) -> Any:
    """A value as its column takes it: text where kinds are mixed, and no text that UTF-8 cannot hold."""
    if value is None:
        return None
    if kind == TEXT and not isinstance(value, str):
        return printable(json.dumps(plain_value(value), ensure_ascii=False))
    if pa.types.is_floating(kind):
        return float(value)
    return printable(value) if isinstance(value, str) else value


def printable(text: str) -> str:
    """With escapes for what is not Unicode."""
    return text.encode("utf-8", "backslashreplace").decode()


def plain_value(value: Any) -> Any:
    """A value as JSON has it: null for what is no number, times and days as ISO 8601, other kinds as text."""
    if isinstance(value, Mapping):
        return {str(key): plain_value(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain_value(inner) for inner in value]
    if isinstance(value, float):
        return value if value - value == 0 else None
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
