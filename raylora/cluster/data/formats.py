"""Readers of every format: rows in order, with every fault named by place. Knows no ray."""

import csv
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import IO, TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet

from raylora.cluster.data.content import LOOKED_AT, TEXT_CONTROLS, check_unpacked
from raylora.cluster.data.rows import Part, Row, Source, check_row
from raylora.config import DataSection
from raylora.errors import DataError, EmptyFileError

if TYPE_CHECKING:
    from _csv import Reader

LONGEST_CELL = 2**27  # bytes; csv's own limit of 128 KiB refuses long documents
LONGEST_NAME = 40  # characters of a column's name; what is longer looks like a text
SNIFFED = 2**16  # characters in which a header ends
QUOTED = re.compile(r'(?:^|(?<=[,;\t|]))"(?:[^"]|"")*"')
WHOLE_FLOAT = re.compile(r"-?(0|[1-9]\d{0,14})\.0+")


def _columns(source: Source, found: list[str], data: DataSection, hint: str = "") -> list[int]:
    """Positions of the text, label and pair columns.

    Args:
        hint: what to do where a column is missing, with `{key}` for its key.

    Raises:
        DataError: a column is missing, or is there twice; names the ones there are.
    """
    wanted = {"data.text_column": data.text_column, "data.label_column": data.label_column}
    if data.text_pair_column:
        wanted["data.text_pair_column"] = data.text_pair_column
    for key, name in wanted.items():
        if name not in found:
            shown = ", ".join(repr(column[:40]) for column in found[:20])
            mend = (hint or "Set `{key}`.").format(key=key)
            raise DataError(f"{source.path} has no column '{name}'. Columns found: {shown}. {mend}")
        check_once(source.path, found, name)
    return [found.index(name) for name in wanted.values()]


def check_once(path: str, columns: Sequence[str], name: str) -> None:
    """Raises:
    DataError: two columns are named so.
    """
    if columns.count(name) > 1:
        raise DataError(f"{path} has two columns named '{name}'. Rename one of them.")


@dataclass(frozen=True)
class Header:
    """Column names of a csv or tsv, and what stands between them."""

    names: list[str]
    delimiter: str


def csv_rows(source: Source, text: IO[str], data: DataSection, header: Header, part: Part) -> Iterator[Row]:
    names = header.names
    positions = _columns(source, names, data, _header_hint(source.format, names))
    reader = csv_reader(source.format, text, header.delimiter)
    if not part.start:
        next(filter(None, reader))
    while True:
        place = part.before + reader.line_num + 1
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
        values: list[Any] = [cells[i] for i in positions]
        values[1] = _number(values[1], data)
        yield check_row(place, values, data)


def _number(label: str, data: DataSection) -> str | int:
    """A csv has no types: 1.0 is what pandas writes of an int where another is missing."""
    if label.endswith("0") and WHOLE_FLOAT.fullmatch(label.strip()) and label.strip() not in (data.labels or ()):
        return int(float(label))
    return label


def _header_hint(kind: str, names: list[str]) -> str:
    if kind == "tsv" and len(names) == 1 and re.search("[,;|]", names[0]):
        return "There is no tab in its first line: set data.format=csv."
    if any(re.search("[\udc80-\udcff]", name) for name in names):
        return "Its first line is not UTF-8: convert it, iconv -f ENCODING -t UTF-8."
    if any(name.count(" ") > 2 or len(name) > LONGEST_NAME or name.isdecimal() for name in names):
        return "Set `{key}`. Is that a row? Then put a line of column names before it."
    return ""


def csv_reader(kind: str, lines: Iterable[str], delimiter: str) -> "Reader":
    """Rows of a csv (quotes checked) or tsv (quotes taken literally), from their lines."""
    csv.field_size_limit(LONGEST_CELL)
    if kind == "tsv":
        return csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE)
    return csv.reader(lines, delimiter=delimiter, strict=True)


def _delimiter(head: str) -> str:
    header = re.split(r"[\r\n]", QUOTED.sub("", head.lstrip("\r\n")), maxsplit=1)[0]
    return max(",;\t|", key=header.count)


def read_header(path: str, kind: str, text: IO[str]) -> Header:
    """Of a csv or tsv: its first line that is not blank. Leaves the stream at its begin.

    Raises:
        EmptyFileError: there are none.
        DataError: they cannot be read.
    """
    delimiter = "\t" if kind == "tsv" else _delimiter(text.read(SNIFFED))
    text.seek(0)
    try:
        names = [name.strip() for name in next(filter(None, csv_reader(kind, text, delimiter)), [])]
    except csv.Error as error:
        raise DataError(f"{path}: the header cannot be read: {error}.") from None
    if not names:
        raise EmptyFileError(f"{path} is empty: a {kind} file starts with a line of column names.")
    text.seek(0)
    return Header(names, delimiter)


def jsonl_rows(source: Source, text: IO[str], data: DataSection, part: Part) -> Iterator[Row]:
    begun = part.start > 0
    for place, line in enumerate(text, part.before + 1):
        if not line.strip():
            continue
        if not begun and line.lstrip().startswith("["):
            raise DataError(f"{source.path} holds a list, not an object on each line. Set data.format=json.")
        begun = True
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield Row(place, fault=f"not JSON: {error}")
            continue
        yield _record(place, record, data)


def json_rows(source: Source, text: IO[str], data: DataSection, _: Part) -> Iterator[Row]:
    content = text.read()
    if not content.strip():
        raise EmptyFileError(f"{source.path} is empty.")
    try:
        records = json.loads(content)
    except (ValueError, RecursionError) as error:
        mend = " One object per line? Set data.format=jsonl." if content.lstrip().startswith("{") else ""
        raise DataError(f"{source.path} is not JSON: {error}.{mend}") from None
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


def parquet_rows(source: Source, stream: IO[bytes], data: DataSection, part: Part) -> Iterator[Row]:
    file = open_table(source.path, stream)
    columns = file.schema_arrow.names
    positions = _columns(source, columns, data)
    for i in positions:
        _check_plain(source.path, columns[i], file.schema_arrow.field(i).type)
    known = label_names(file.schema_arrow).get(data.label_column)
    try:
        for place, batch in _batches(file, [columns[i] for i in positions], part):
            ordered = [batch.column(columns[i]).to_pylist() for i in positions]
            for number, values in enumerate(zip(*ordered, strict=True), place + 1):
                yield _labelled(number, list(values), data, known)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{source.path} is not readable as parquet: {error}") from None


def _batches(file: pyarrow.parquet.ParquetFile, columns: list[str], part: Part) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The rows of a part, with how many of the file's lie before each batch; only its row groups are read."""
    rows = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    starts = [0, *accumulate(rows)]
    end = starts[-1] if part.end is None else part.end
    groups = [i for i, start in enumerate(starts[:-1]) if start < end and starts[i + 1] > part.start]
    at = starts[groups[0]] if groups else 0
    for batch in file.iter_batches(4096, row_groups=groups, columns=columns) if groups else ():
        first, last = max(part.start - at, 0), min(end - at, batch.num_rows)
        if first < last:
            yield at + first, batch.slice(first, last - first)
        at += batch.num_rows


def open_table(path: str, stream: IO[bytes]) -> pyarrow.parquet.ParquetFile:
    """Raises:
    DataError: it is no parquet.
    """
    head = stream.read(LOOKED_AT)
    if not head.startswith(b"PAR1"):
        check_unpacked(path, head)
    stream.seek(0)
    try:
        return pyarrow.parquet.ParquetFile(stream)
    except (pa.ArrowInvalid, OSError) as error:
        is_text = head and all(byte >= 32 or byte in TEXT_CONTROLS for byte in head)
        mend = " It looks like text: set `data.format` to csv, tsv, json or jsonl." if is_text else ""
        raise DataError(f"{path} is not readable as parquet: {error}{mend}") from None


def label_names(schema: pa.Schema) -> dict[str, list[str]]:
    """Of columns that `datasets` wrote as ClassLabel: the names of their numbers, which the file itself carries."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {name: f["names"] for name, f in features.items() if f.get("_type") == "ClassLabel" and "names" in f}
    except (KeyError, ValueError, AttributeError, TypeError, RecursionError):
        return {}


def _labelled(place: int, values: list[Any], data: DataSection, known: Sequence[str] | None) -> Row:
    """A row whose label may be the number of a name; `data.labels` may name the numbers themselves."""
    number = values[1]
    if known and isinstance(number, int) and str(number) not in (data.labels or ()):
        if not 0 <= number < len(known):
            return Row(place, fault=f"'{data.label_column}' is {number}; the file names labels 0 to {len(known) - 1}")
        values[1] = known[number]
    return check_row(place, values, data)


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
    known: list[str] | None = getattr(table.features[names[1]], "names", None)  # a ClassLabel
    for place, record in enumerate(table, 1):
        yield _labelled(place, [record[column] for column in names], data, known)
