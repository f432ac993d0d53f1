"""A first config for a data file: which column is the text and which the label, as far as the rows tell."""

import csv
import json
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet

from raylora.cluster.data.find import MAGIC, decide_format, find_files, splits_there
from raylora.cluster.data.formats import check_once, csv_reader, label_names, open_table, read_header
from raylora.cluster.data.sources import open_input, open_text
from raylora.cluster.storage.filesystem import base_name
from raylora.config import Job
from raylora.config import file as jobfile
from raylora.errors import ConfigError, DataError, EmptyFileError

LOOKED_AT = 1000
FILES_LOOKED_AT = 10  # parts may be sorted by label
PAIR_NAMES = (
    ("sentence1", "sentence2"),
    ("text1", "text2"),
    ("text_a", "text_b"),
    ("sentence_a", "sentence_b"),
    ("question1", "question2"),
    ("premise", "hypothesis"),
    ("query", "passage"),
    ("question", "sentence"),
)
TEXT_NAMES = ("text", "sentence", "review", "content", "body", "message", "comment", "tweet", "question", "utterance")
LABEL_NAMES = ("label", "labels", "class", "category", "target", "sentiment", "intent", "topic", "tag", "y")


def write_config(data: str, output: str | None, wished: Job | None = None) -> Path:
    """Write a commented config for a file, folder, glob or URI, with its columns found out.

    Args:
        wished: what is set already; columns that it names are not guessed.

    Raises:
        DataError: a file cannot be read, or no column can be the text or the label.
        ConfigError: the output is there already.
    """
    path = Path(output or _name_for(data))
    if path.exists():
        raise ConfigError(f"{path} is there already. Remove it, or name another with --output.")
    wished = wished or Job()
    columns = _columns_with_rows(data, wished)
    job = _guessed(data, columns, wished)
    content = _head(columns, job) + jobfile.commented(job)
    try:
        path.write_text(content, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}. Name another with --output.") from None
    return path


def guess_job(data: str, wished: Job) -> Job:
    """The job of a file, folder, glob or URI: as `write_config` writes it.

    Raises:
        DataError: a file cannot be read, or no column can be the text or the label.
    """
    return _guessed(data, _columns_with_rows(data, wished), wished)


def _columns_with_rows(data: str, wished: Job) -> dict[str, list[Any]]:
    columns = read_columns(data, wished.data.format)
    if not any(columns.values()):
        raise EmptyFileError(f"{data} holds no rows: only a header, {', '.join(columns)}.")
    return columns


def _guessed(data: str, columns: dict[str, list[Any]], wished: Job) -> Job:
    text, pair = _guess_texts(data, columns, wished)
    named = wished.data.label_column != Job().data.label_column
    label = wished.data.label_column if named else guess_label(data, columns, text)
    found = {"train": data, "text_column": text, "text_pair_column": pair, "label_column": label}
    splits = splits_there(data, wished.data.format)
    found |= {split: data for split in splits if getattr(wished.data, split) is None}
    return wished.replace({f"data.{key}": value for key, value in found.items()})


def _name_for(data: str) -> str:
    stem = Path(base_name(data)).stem
    return f"{'data' if MAGIC.search(stem) else stem}.yaml"


def read_columns(data: str, chosen: str = "auto") -> dict[str, list[Any]]:
    """The first thousand rows of a file, or of the first files of a folder or glob, by column.

    Raises:
        DataError: nothing is there, or it cannot be read.
    """
    if data.startswith("hf://"):
        raise DataError(f"{data} is on the hub, where columns are not looked up: set `data.text_column` yourself.")
    files = find_files(data, chosen)[:FILES_LOOKED_AT]
    tables: list[dict[str, list[Any]]] = []
    empty: EmptyFileError | None = None
    for file in files:
        try:
            tables.append(_columns_of(file.path, chosen, LOOKED_AT // len(files)))
        except EmptyFileError as error:
            empty = error
    if empty and not tables:
        raise empty
    names = dict.fromkeys(name for table in tables for name in table)
    return {name: [value for table in tables for value in _column(table, name)] for name in names}


def _column(table: dict[str, list[Any]], name: str) -> list[Any]:
    return table.get(name) or [None] * max(map(len, table.values()), default=0)


def _columns_of(path: str, chosen: str, most: int) -> dict[str, list[Any]]:
    kind = decide_format(path, chosen)
    try:
        if kind == "parquet":
            with open_input(path) as stream:
                return _table_head(path, open_table(path, stream), most)
        with open_text(path) as text:
            if kind in ("csv", "tsv"):
                header = read_header(path, kind, text)
                names = _once(path, header.names)
                reader = csv_reader(kind, text, header.delimiter)
                next(filter(None, reader))
                rows = [r for r in islice(reader, most) if len(r) == len(names)]
                return {name: [row[i] for row in rows] for i, name in enumerate(names)}
            records = _records(path, kind, text, most)
    except (ValueError, OSError, RecursionError, csv.Error, pa.ArrowInvalid) as error:
        raise DataError(f"{path} cannot be read as {kind}: {error}") from None
    names = list(dict.fromkeys(name for record in records for name in record))
    return {name: [record.get(name) for record in records] for name in names}


def _once(path: str, names: list[str]) -> list[str]:
    for name in filter(None, names):
        check_once(path, names, name)
    return names


def _table_head(path: str, file: pyarrow.parquet.ParquetFile, most: int) -> dict[str, list[Any]]:
    _once(path, file.schema_arrow.names)
    batch = next(file.iter_batches(most), None)
    columns: dict[str, list[Any]] = batch.to_pydict() if batch is not None else {}
    for name, known in label_names(file.schema_arrow).items():
        columns[name] = [known[n] if n is not None and 0 <= n < len(known) else None for n in columns.get(name, [])]
    return columns


def _guess_texts(data: str, columns: dict[str, list[Any]], wished: Job) -> tuple[str, str | None]:
    """The column of texts, and that of their pairs, where two columns carry names of pairs."""
    named, pair = wished.data.text_column, wished.data.text_pair_column
    if named != Job().data.text_column or pair:
        return named, pair
    own = {name.strip().lower(): name for name in columns if _mean_width(columns[name]) > 0}
    for first, second in PAIR_NAMES:
        if first in own and second in own:
            return own[first], own[second]
    return guess_text(data, columns), None


def guess_text(data: str, columns: dict[str, list[Any]]) -> str:
    """By name, else the column of the longest strings."""
    widths = {name: _mean_width(values) for name, values in columns.items()}
    named = [name for wanted in TEXT_NAMES for name in columns if name.strip().lower() == wanted and widths[name] > 0]
    if named:
        return named[0]
    longest = max(widths, key=lambda name: widths[name], default="")
    if not longest or widths[longest] == 0:
        raise DataError(f"{data} has no column of texts. Columns found: {', '.join(columns) or 'none'}.")
    return longest


def guess_label(data: str, columns: dict[str, list[Any]], text: str) -> str:
    """By name, else the column with the fewest different values, at least two."""
    kinds = {name: len({str(v) for v in values}) for name, values in columns.items() if name != text}
    named = [name for wanted in LABEL_NAMES for name in kinds if name.strip().lower() == wanted]
    if named:
        return named[0]
    possible = {name: count for name, count in kinds.items() if 2 <= count <= len(columns[name]) / 2}
    if not possible:
        raise DataError(f"{data} has no column that could be a label. Columns found: {', '.join(columns)}.")
    return min(possible, key=lambda name: possible[name])


def _records(data: str, kind: str, text: IO[str], most: int) -> list[dict[str, Any]]:
    if kind == "json":
        try:
            found = json.load(text)
        except ValueError as error:
            name = f"{Path(data).stem}.jsonl"
            raise DataError(f"{data} cannot be read as json: {error}. One object per line? Name it {name}.") from None
        if not isinstance(found, list):
            raise DataError(f"{data} must hold a list of objects, found {type(found).__name__}.")
        records = found[:most]
    else:
        records = [json.loads(line) for line in islice(text, most) if line.strip()]
    for record in records:
        if not isinstance(record, dict):
            raise DataError(f"{data} must hold objects, found {type(record).__name__}.")
    return records


def _mean_width(values: Sequence[Any]) -> float:
    texts = [value for value in values if isinstance(value, str)]
    return sum(map(len, texts)) / len(texts) if texts else 0.0


def _head(columns: dict[str, list[Any]], job: Job) -> str:
    data = job.data
    text, pair, label = data.text_column, data.text_pair_column, data.label_column
    labels = sorted({str(value) for value in columns.get(label, [])})
    shown = ", ".join(labels[:10]) + (", …" if len(labels) > 10 else "")
    unused = [name for name in columns if name not in (text, pair, label)]
    lines = [
        f"A raylora job for {data.train}. Columns found: {', '.join(columns)}.",
        f"Text: '{text}'{f', in pairs with {pair!r}' if pair else ''}. "
        f"Label: '{label}', with {len(labels)} values in the first rows: {shown}.",
        *([f"Not used: {', '.join(unused)}."] if unused else []),
        *([f"No header? One of the values of '{label}' is its name."] if label in labels else []),
        "Keys with a # are at their default.",
    ]
    # one line each: a name may hold a line break
    return "".join(f"# {' '.join(line.split())}\n" for line in lines) + "\n"
