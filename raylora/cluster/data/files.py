"""Rows of one file, with every fault named by place. Knows no ray: Ray Data calls `read_rows` in its tasks.

A fault is a value, not an exception: the driver decides what a bad row means, and sees them all at once.
"""

import codecs
import csv
import glob
import io
import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet

from raylora.config import DataSection
from raylora.demo import REVIEWS
from raylora.errors import DataError

if TYPE_CHECKING:
    from _csv import Reader

Side = Literal["train", "validation", "test"]
EXTENSIONS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".parquet": "parquet",
}
LONGEST_CELL = 2**27  # bytes; csv's own limit of 128 KiB refuses long documents


@dataclass(frozen=True)
class Source:
    """One file of a split. `path` is absolute or a URI; `format` is decided."""

    path: str
    side: Side
    format: str

    @property
    def name(self) -> str:
        return self.path.rsplit("/", 1)[-1]

    def place(self, number: int) -> str:
        """Where a record stands: a line of a text file, a row of a table."""
        unit = "line" if self.format in ("csv", "tsv", "jsonl") else "row"
        return f"{self.path}, {unit} {number}"


@dataclass(frozen=True)
class Row:
    """One record. `place` counts lines (text formats) or rows from 1; `fault` says why the row cannot be used."""

    place: int
    text: str = ""
    text_pair: str | None = None
    label: str = ""
    fault: str | None = None


def list_sources(data: DataSection) -> list[Source]:
    """The files of every split, in a fixed order; the head of the first of each split is read at once.

    Raises:
        DataError: nothing is there, a file is empty or not of its format, a column is missing.
    """
    sources: list[Source] = []
    named: list[tuple[Side, str | list[str] | None]] = [
        ("train", data.train or str(REVIEWS)),
        ("validation", data.validation),
        ("test", data.test),
    ]
    for side, where in named:
        patterns = [where] if isinstance(where, str) else where or []
        paths = [path for pattern in patterns for path in _paths(pattern)]
        found = [Source(path, side, decide_format(path, data.format)) for path in paths]
        if found:
            check_head(found[0], data)
        sources += found
    return sources


def check_head(source: Source, data: DataSection) -> None:
    """Fail early on a file that can yield nothing.

    Raises:
        DataError: the file is empty, undecodable, not of its format, lacks a column or holds no row.
    """
    row = next(read_rows(source, data), None)
    if row is None:
        raise DataError(f"{source.path} holds no rows: {'only a header' if _size(source.path) else 'it is empty'}.")


def read_rows(source: Source, data: DataSection) -> Iterator[Row]:
    """Every record of a file, in order, bad ones too.

    Raises:
        DataError: the file as a whole cannot be read.
    """
    if source.path.startswith("hf://"):
        yield from _hub_rows(source, data)
        return
    if source.format == "parquet":
        with open_input(source.path) as stream:
            yield from _parquet_rows(source, stream, data)
        return
    reader = {"jsonl": _jsonl_rows, "json": _json_rows}.get(source.format, _csv_rows)
    with open_text(source.path) as text:
        yield from reader(source, text, data)


def open_input(path: str) -> IO[bytes]:
    """A readable, seekable stream of a local path or any URI that pyarrow knows (s3://, gs://, hdfs://)."""
    try:
        if "://" not in path:
            return Path(path).open("rb")
        filesystem, inner = pyarrow.fs.FileSystem.from_uri(path)
        return filesystem.open_input_file(inner)  # pyright: ignore[reportReturnType]
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{path} cannot be opened: {error}") from None


def open_text(path: str) -> IO[str]:
    """A text stream of UTF-8, with or without a byte order mark.

    Bytes that are not UTF-8 come as lone surrogates, so that one bad row does not cost the file.

    Raises:
        DataError: the file cannot be opened, or is UTF-16.
    """
    stream = open_input(path)
    head = stream.read(4)
    stream.seek(0)
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DataError(f"{path} is UTF-16, not UTF-8. Convert it: iconv -f UTF-16 -t UTF-8.")
    return io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")


def _paths(pattern: str) -> list[str]:
    if pattern.startswith("hf://"):
        return [pattern]
    if "://" in pattern:
        return _remote_paths(pattern)
    path = Path(pattern).expanduser()
    if path.is_dir():
        found = sorted(str(p) for p in path.iterdir() if p.suffix.lower() in EXTENSIONS and p.is_file())
        if not found:
            raise DataError(f"folder {pattern} holds no data file; known endings: {' '.join(EXTENSIONS)}.")
    else:
        found = [str(path)] if path.is_file() else sorted(glob.glob(str(path), recursive=True))
        if not found:
            raise DataError(
                f"{pattern} is not there (looked in {Path.cwd()}). Check `data.train`, `.validation`, `.test`."
            )
    return [os.path.abspath(p) for p in found]


def _remote_paths(uri: str) -> list[str]:
    try:
        filesystem, inner = pyarrow.fs.FileSystem.from_uri(uri)
        info = filesystem.get_file_info(inner)
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{uri} cannot be reached: {error}") from None
    if info.type == pyarrow.fs.FileType.File:
        return [uri]
    scheme, query = uri.split("://")[0], uri.partition("?")[2]
    inside = filesystem.get_file_info(pyarrow.fs.FileSelector(inner, allow_not_found=True))
    names = sorted(i.path for i in inside if os.path.splitext(i.path)[1].lower() in EXTENSIONS)
    if not names:
        raise DataError(f"{uri} is not there, or a folder without a data file ({' '.join(EXTENSIONS)}).")
    return [f"{scheme}://{name}{'?' if query else ''}{query}" for name in names]


def decide_format(path: str, chosen: str) -> str:
    """The format of a file: as chosen, or by its ending.

    Raises:
        DataError: the ending tells nothing.
    """
    if chosen != "auto" or path.startswith("hf://"):
        return chosen
    ending = os.path.splitext(path.partition("?")[0])[1].lower()
    if ending not in EXTENSIONS:
        known = "csv, tsv, jsonl, json or parquet"
        raise DataError(f"{path}: the ending '{ending}' tells no format. Set `data.format` to {known}.")
    return EXTENSIONS[ending]


def _size(path: str) -> int:
    return os.path.getsize(path) if "://" not in path else 1


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


def _csv_rows(source: Source, text: IO[str], data: DataSection) -> Iterator[Row]:
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


def _jsonl_rows(source: Source, text: IO[str], data: DataSection) -> Iterator[Row]:
    for place, line in enumerate(text, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield Row(place, fault=f"not JSON: {error}")
            continue
        yield _record(place, record, data)


def _json_rows(source: Source, text: IO[str], data: DataSection) -> Iterator[Row]:
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


def _parquet_rows(source: Source, stream: IO[bytes], data: DataSection) -> Iterator[Row]:
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


def _hub_rows(source: Source, data: DataSection) -> Iterator[Row]:
    """`hf://org/name` or `hf://org/name/split`, through `datasets` (the split defaults to the side)."""
    import datasets

    name = source.path.removeprefix("hf://").removeprefix("datasets/")
    name, split = (name.rpartition("/")[0], name.rpartition("/")[2]) if name.count("/") > 1 else (name, source.side)
    try:
        table: Any = datasets.load_dataset(name, split=split)
    except Exception as error:  # noqa: BLE001 - the hub client raises many types, all meaning "not to be had"
        raise DataError(f"{source.path} (split '{split}') cannot be loaded from the hub: {error}") from None
    positions = _columns(source, list(table.column_names), data)
    names = [table.column_names[i] for i in positions]
    feature = table.features[names[1]]
    for place, record in enumerate(table, 1):
        values = [record[column] for column in names]
        if isinstance(feature, datasets.ClassLabel) and values[1] is not None:
            values[1] = feature.int2str(values[1])
        yield check_row(place, values, data)


def check_row(place: int, values: list[Any], data: DataSection) -> Row:
    """A row from its raw text, label and (where configured) pair values."""
    text, text_fault = _as_text(values[0], data.text_column)
    label, label_fault = _as_label(values[1], data.label_column)
    pair, pair_fault = _as_text(values[2], str(data.text_pair_column)) if len(values) > 2 else (None, None)
    fault = text_fault or pair_fault or label_fault
    if fault is None and data.labels is not None and label not in data.labels:
        fault = f"label '{label}' is not one of `data.labels` ({', '.join(data.labels[:10])})"
    if fault:
        return Row(place, fault=fault)
    return Row(place, text, pair, label)


def _as_text(value: Any, column: str) -> tuple[str, str | None]:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "surrogateescape")
    if value is None:
        return "", f"'{column}' is null"
    if not isinstance(value, str):
        return "", f"'{column}' must be text, found {type(value).__name__} {str(value)[:40]!r}"
    if not value.strip():
        return "", f"'{column}' is blank"
    return value, _undecodable(value, column)


def _as_label(value: Any, column: str) -> tuple[str, str | None]:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "surrogateescape")
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "", f"'{column}' is null"
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # pandas writes an int column with a null in it as floats
    if isinstance(value, bool):
        value = str(value).lower()
    if not isinstance(value, str | int):
        return "", f"'{column}' must be a string or an int, found {type(value).__name__} {str(value)[:40]!r}"
    label = str(value).strip()
    if not label:
        return "", f"'{column}' is blank"
    return label, _undecodable(label, column)


def _undecodable(value: str, column: str) -> str | None:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        code = ord(value[error.start])
        what = f"byte 0x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"lone surrogate \\u{code:04x}"
        return f"'{column}' is not UTF-8: {what} at character {error.start}"
    return None
