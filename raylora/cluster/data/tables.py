"""Tables with types: parquet and Arrow (files, streams, feather), through pyarrow, and the hub through `datasets`.

Rows are counted over all row groups or record batches, which neither `datasets` nor Ray Data tells of a row.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import IO, Any, cast

import pyarrow as pa
import pyarrow.parquet

from raylora.cluster.data.columns import check_once, positions_of
from raylora.cluster.data.content import LOOKED_AT, TEXT_CONTROLS, check_unpacked
from raylora.cluster.data.rows import Part, Row, Source, check_row
from raylora.config import DataSection
from raylora.errors import DataError
from raylora.tasks.parsed import plain

ROWS_AT_ONCE = 4096
FAULTS = (pa.ArrowException, OSError, ValueError, OverflowError, EOFError, KeyError)
PARQUET, ARROW_FILE, ARROW_STREAM = b"PAR1", b"ARROW1", b"\xff\xff\xff\xff"

Batches = Iterator[tuple[int, pa.RecordBatch]]  # how many of the file's rows lie before, and the rows


def parquet_rows(source: Source, stream: IO[bytes], data: DataSection, part: Part) -> Iterator[Row]:
    file = open_parquet(source.path, stream)
    table = _Columns(source, file.schema_arrow, data)
    yield from table.rows(_parquet_batches(file, table.names, part), "parquet")


def arrow_rows(source: Source, stream: IO[bytes], data: DataSection, part: Part) -> Iterator[Row]:
    """Args:
    part: record batches, not rows, of an Arrow file; a stream is read whole.
    """
    reader = open_arrow(source.path, stream)
    yield from _Columns(source, reader.schema, data).rows(_arrow_batches(reader, part), "arrow")


def whole_batches(
    source: Source, stream: IO[bytes], data: DataSection, part: Part, kept: Sequence[str]
) -> Iterator[tuple[list[Row], pa.RecordBatch]]:
    """Rows of a parquet or Arrow file, with the columns `kept` of them as they are.

    Raises:
        DataError: as `parquet_rows`; a column that is kept is of a type that is not read.
    """
    if source.format == "parquet":
        file = open_parquet(source.path, stream)
        table = _Columns(source, file.schema_arrow, data)
        batches = _parquet_batches(file, list(dict.fromkeys([*kept, *table.names])), part)
    else:
        reader = open_arrow(source.path, stream)
        table = _Columns(source, reader.schema, data)
        batches = _arrow_batches(reader, part)
    for rows, batch in table.batches(batches, source.format):
        yield rows, batch.select(list(kept))


def schema_of(source: Source, stream: IO[bytes], kept: Sequence[str] | None) -> pa.Schema:
    """Of a parquet or Arrow file: all of its columns, or those that are `kept`.

    Raises:
        DataError: one is there twice, or of a type that is not read.
    """
    is_parquet = source.format == "parquet"
    schema = open_parquet(source.path, stream).schema_arrow if is_parquet else open_arrow(source.path, stream).schema
    names = [name for name in schema.names if kept is None or name in kept]
    for name in names:
        check_once(source.path, schema.names, name)
        _check_plain(source.path, name, schema.field(name).type)
    return pa.schema([schema.field(name).remove_metadata() for name in dict.fromkeys(names)])


class _Columns:
    """The wanted columns of a table, and what their values mean."""

    def __init__(self, source: Source, schema: pa.Schema, data: DataSection) -> None:
        """Raises:
        DataError: a column is missing, there twice, or of a type that is not read.
        """
        found = schema.names
        self._source, self._data = source, data
        self._positions = positions_of(source.path, found, data)
        self.names = [found[i] for i in self._positions]
        for i in self._positions:
            _check_plain(source.path, found[i], schema.field(i).type)
        self._known = label_names(schema).get(data.label_column)

    def rows(self, batches: Batches, kind: str) -> Iterator[Row]:
        for rows, _ in self.batches(batches, kind):
            yield from rows

    def batches(self, batches: Batches, kind: str) -> Iterator[tuple[list[Row], pa.RecordBatch]]:
        """Each batch with its rows."""
        try:
            for before, batch in batches:
                yield self._rows(before, batch), batch
        except FAULTS as error:
            raise DataError(f"{self._source.path} is not readable as {kind}: {error}") from None

    def _rows(self, before: int, batch: pa.RecordBatch) -> list[Row]:
        ordered = [to_values(batch.column(name)) for name in self.names]
        each = enumerate(zip(*ordered, strict=True), before + 1)
        return [labelled(place, list(values), self._data, self._known) for place, values in each]


def to_values(column: Any) -> list[Any]:
    """Bytes where a string is not UTF-8: a fault of that row, not of the file."""
    if pa.types.is_decimal(column.type):
        return [None if value is None else plain(value) for value in column.to_pylist()]
    try:
        return column.to_pylist()
    except UnicodeDecodeError:
        return column.cast(pa.large_binary() if column.type == pa.large_string() else pa.binary()).to_pylist()


def _parquet_batches(file: pyarrow.parquet.ParquetFile, columns: list[str], part: Part) -> Batches:
    """The rows of a part; only its row groups are read."""
    rows = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    starts = [0, *accumulate(rows)]
    end = starts[-1] if part.end is None else part.end
    groups = [i for i, start in enumerate(starts[:-1]) if start < end and starts[i + 1] > part.start]
    at = starts[groups[0]] if groups else 0
    for batch in file.iter_batches(ROWS_AT_ONCE, row_groups=groups, columns=columns) if groups else ():
        first, last = max(part.start - at, 0), min(end - at, batch.num_rows)
        if first < last:
            yield at + first, batch.slice(first, last - first)
        at += batch.num_rows


def _arrow_batches(reader: Any, part: Part) -> Batches:
    before = part.before
    for batch in arrow_batches(reader, part):
        for start in range(0, batch.num_rows, ROWS_AT_ONCE):  # feather holds 65,536 rows in one
            yield before + start, batch.slice(start, ROWS_AT_ONCE)
        before += batch.num_rows


def arrow_batches(reader: Any, part: Part) -> Iterator[pa.RecordBatch]:
    if not isinstance(reader, pa.RecordBatchFileReader):
        return iter(reader)
    end = reader.num_record_batches if part.end is None else part.end
    return map(reader.get_batch, range(part.start, end))


def open_parquet(path: str, stream: IO[bytes]) -> pyarrow.parquet.ParquetFile:
    """Raises:
    DataError: it is no parquet.
    """
    head = _head(path, stream, PARQUET)
    try:
        return pyarrow.parquet.ParquetFile(stream)
    except FAULTS as error:
        raise DataError(f"{path} is not readable as parquet: {error}{_mend(head)}") from None


def open_arrow(path: str, stream: IO[bytes]) -> Any:
    """A reader of an Arrow file (feather too) or of an Arrow stream, as `datasets` writes it.

    Raises:
        DataError: it is neither.
    """
    head = _head(path, stream, ARROW_FILE, ARROW_STREAM)
    try:
        return (pa.ipc.open_file if head.startswith(ARROW_FILE) else pa.ipc.open_stream)(stream)
    except FAULTS as error:
        raise DataError(f"{path} is not readable as arrow: {error}{_mend(head)}") from None


def _head(path: str, stream: IO[bytes], *begins: bytes) -> bytes:
    head = stream.read(LOOKED_AT)
    stream.seek(0)
    if not head.startswith(begins):
        check_unpacked(path, head)
    return head


def _mend(head: bytes) -> str:
    is_text = head and all(byte >= 32 or byte in TEXT_CONTROLS for byte in head)
    return " It looks like text: set `data.format` to csv, tsv, json or jsonl." if is_text else ""


def label_names(schema: pa.Schema) -> dict[str, list[str]]:
    """Of columns that `datasets` wrote as ClassLabel: the names of their numbers, which the file itself carries."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        found = {name: _class_label(feature) for name, feature in features.items()}
        return {name: known for name, known in found.items() if known}
    except (KeyError, ValueError, AttributeError, TypeError, RecursionError):
        return {}


def _class_label(feature: Any) -> list[str] | None:
    """The names of a ClassLabel, or of a list of them."""
    if isinstance(feature, list):  # as older versions of `datasets` write a list
        return _class_label(feature[0])
    if feature.get("_type") in ("Sequence", "List", "LargeList"):
        return _class_label(feature["feature"])
    return feature["names"] if feature.get("_type") == "ClassLabel" and "names" in feature else None


def labelled(
    place: int,
    values: list[Any],
    data: DataSection,
    known: Sequence[str] | None,
    record: Mapping[str, Any] | None = None,
) -> Row:
    """A row whose label may be a name's number, or a list of such; `data.labels` may name the numbers themselves."""
    if known is None:
        return check_row(place, values, data, record)
    label = values[1]
    for number in cast(list[Any], label) if isinstance(label, list) else [label]:
        if isinstance(number, int) and str(number) not in (data.labels or ()) and not 0 <= number < len(known):
            return Row(place, fault=f"'{data.label_column}' is {number}; the file names labels 0 to {len(known) - 1}")
    values[1] = named_labels(label, known, data)
    return check_row(place, values, data, record)


def named_labels(label: Any, known: Sequence[str], data: DataSection) -> Any:
    """The name of a label's number, or of each in a list; None of a number without one (-1 is an unlabelled row)."""
    if isinstance(label, list):
        return [named_labels(each, known, data) for each in cast(list[Any], label)]
    if not isinstance(label, int) or str(label) in (data.labels or ()):
        return label
    return known[label] if 0 <= label < len(known) else None


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


def head_of_table(path: str, kind: str, stream: IO[bytes], most: int) -> dict[str, list[Any]]:
    """The first rows, by column, with the names of labels."""
    reader = open_parquet(path, stream) if kind == "parquet" else open_arrow(path, stream)
    schema = reader.schema_arrow if kind == "parquet" else reader.schema
    for name in schema.names:
        check_once(path, schema.names, name)
    batches = reader.iter_batches(most) if kind == "parquet" else arrow_batches(reader, Part())
    batch = next((batch for batch in batches if batch.num_rows), None)
    columns = batch.slice(0, most).to_pydict() if batch is not None else {name: [] for name in schema.names}
    for name, known in label_names(schema).items():
        columns[name] = [named_labels(value, known, DataSection()) for value in columns.get(name, [])]
    return columns


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
    positions = positions_of(source.path, list(table.column_names), data)
    names = [table.column_names[i] for i in positions]
    feature: Any = table.features[names[1]]
    known: list[str] | None = getattr(getattr(feature, "feature", feature), "names", None)  # a ClassLabel, or a list
    for place, record in enumerate(table, 1):
        yield labelled(place, [record[column] for column in names], data, known, record)
