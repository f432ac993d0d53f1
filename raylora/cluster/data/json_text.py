"""JSON: an object on each line, or one value that holds all rows.

Python's `json`, not pyarrow's reader or that of `datasets`: those end at the first line that is broken, or whose value
is of another type than the lines before, and do not say which line that is.
"""

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, TextIO, cast

from raylora.cluster.data.columns import is_by_position, wanted_columns
from raylora.cluster.data.encodings import undecodable
from raylora.cluster.data.rows import Part, Row, Source, check_row
from raylora.config import DataSection
from raylora.errors import DataError, EmptyFileError

FAULTS = (ValueError, RecursionError)


def jsonl_rows(source: Source, text: TextIO, data: DataSection, part: Part) -> Iterator[Row]:
    begun = part.start > 0 or _has_columns(data)
    for place, line in enumerate(text, part.before + 1):
        if not line.strip():
            continue
        if not begun and line.lstrip().startswith("["):
            raise DataError(f"{source.path} holds a list, not an object on each line. Set data.format=json.")
        begun = True
        try:
            record = json.loads(line)
        except FAULTS as error:
            yield Row(place, fault=f"not JSON: {error}")
            continue
        yield record_row(place, record, data, text.encoding)


def json_rows(source: Source, text: TextIO, data: DataSection) -> Iterator[Row]:
    records = load_records(source.path, text, list(wanted_columns(data).values()))
    for place, record in enumerate(records, 1):
        yield record_row(place, record, data, text.encoding)


def load_records(path: str, text: TextIO, wanted: Sequence[str] = ()) -> list[Any]:
    """The rows of a JSON value: a list of them, one under "data", or columns.

    Args:
        wanted: columns that must be there; where none is named, all are.

    Raises:
        EmptyFileError: the file is empty.
        DataError: it is no JSON, or of another form.
    """
    content = text.read()
    if not content.strip():
        raise EmptyFileError(f"{path} is empty.")
    try:
        value = json.loads(content)
    except FAULTS as error:
        mend = " One object per line? Set data.format=jsonl." if content.lstrip().startswith("{") else ""
        raise DataError(f"{path} is not JSON: {error}.{mend}") from None
    records = records_of(path, value, wanted)
    if records is None:
        keys = f" with {', '.join(map(repr, list(value)[:10])) or 'no key'}" if isinstance(value, dict) else ""
        raise DataError(
            f"{path} must hold a list of objects, found {type(value).__name__}{keys}. Or "
            '{"data": [...]}, or a list for each column.'
        )
    return records


def records_of(path: str, value: Any, wanted: Sequence[str] = ()) -> list[Any] | None:
    """The rows that a JSON value holds; None where it holds none.

    Raises:
        DataError: its columns are not of one length.
    """
    if isinstance(value, list):
        return cast(list[Any], value)
    if not isinstance(value, dict):
        return None
    held = cast(dict[str, Any], value)
    if isinstance(held.get("data"), list):
        return _named(held["data"], held.get("columns"))
    columns = _columns(held, wanted)
    if columns:
        return _transposed(path, columns)
    return [held] if wanted and set(wanted) <= held.keys() else None


def _named(rows: list[Any], names: Any) -> list[Any]:
    """As pandas writes it with orient="split": the names once, and a list for each row."""
    if not isinstance(names, list):
        return rows
    return [dict(zip(names, row, strict=False)) if isinstance(row, list) else row for row in rows]


def _columns(held: dict[str, Any], wanted: Sequence[str]) -> dict[str, Any] | None:
    """Lists, or objects by the rows' names, as pandas writes them by default."""
    columns = {name: held[name] for name in wanted or held if isinstance(held.get(name), list | dict)}
    kinds = {type(column) for column in columns.values()}
    if not columns or len(columns) < len(wanted or held) or len(kinds) > 1:
        return None
    keys = {tuple(column) for column in columns.values() if isinstance(column, dict)}
    return columns if len(keys) <= 1 else None


def _transposed(path: str, columns: dict[str, Any]) -> list[dict[str, Any]]:
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"'{name}' {length}" for name, length in list(lengths.items())[:10])
        raise DataError(f"{path} holds columns of different lengths: {shown}. Each row needs a value in each.")
    listed = [column.values() if isinstance(column, dict) else column for column in columns.values()]
    return [dict(zip(columns, row, strict=True)) for row in zip(*listed, strict=True)]


def is_table(value: Any) -> bool:
    """Whether a JSON object holds rows, and is not a side file of other tools (`dataset_info.json`)."""
    try:
        records = records_of("", value)
    except DataError:
        return False
    held = value if isinstance(value, dict) else {}
    return bool(records) and ("data" in held or len(held) > 1)


def record_row(place: int, record: Any, data: DataSection, encoding: str = "utf-8") -> Row:
    """A row from an object, or from a list where the config names its columns or their positions."""
    if isinstance(record, list) and _has_columns(data):
        names = data.columns or [str(i) for i in range(len(record))]
        if len(names) != len(record):
            return Row(place, fault=f"`data.columns` names {len(names)} fields, this row {len(record)}")
        record = dict(zip(names, record, strict=True))
    if not isinstance(record, dict):
        return Row(place, fault=f"must be an object, found {type(record).__name__}")
    wanted = list(wanted_columns(data).values())
    missing = [name for name in wanted if name not in record]
    if missing:
        return Row(place, fault=f"'{missing[0]}' is missing; keys found: {', '.join(map(repr, list(record)[:10]))}")
    values = [record[name] for name in wanted]
    return undecodable(place, values, wanted, encoding) or check_row(place, values, data, record)


def _has_columns(data: DataSection) -> bool:
    return bool(data.columns) or is_by_position(data, [])


def head_of_json(path: str, kind: str, text: TextIO, data: DataSection, most: int) -> dict[str, list[Any]]:
    """The first rows, by column.

    Raises:
        ValueError: a line is no JSON.
        DataError: a row is no object.
    """
    if kind == "json":
        records = load_records(path, text)[:most]
    else:
        records = [json.loads(line) for line in islice(text, most) if line.strip()]
    records = [_as_object(record, data) for record in records]
    for record in records:
        if not isinstance(record, dict):
            raise DataError(f"{path} must hold objects, found {type(record).__name__}.")
    names = list(dict.fromkeys(name for record in records for name in record))
    return {name: [record.get(name) for record in records] for name in names}


def _as_object(record: Any, data: DataSection) -> Any:
    if not isinstance(record, list):
        return record
    return dict(zip(data.columns or map(str, range(len(record))), record, strict=False))
