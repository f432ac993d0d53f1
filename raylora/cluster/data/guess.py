"""A first config for a data file: which column is the text and which the label, as far as the rows tell."""

import csv
import json
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet

from raylora.cluster.data.formats import csv_reader, read_header
from raylora.cluster.data.sources import decide_format, open_text
from raylora.cluster.storage.filesystem import plain
from raylora.config import Job
from raylora.config import file as jobfile
from raylora.errors import ConfigError, DataError

LOOKED_AT = 1000
TEXT_NAMES = ("text", "sentence", "review", "content", "body", "message", "comment", "tweet", "question", "utterance")
LABEL_NAMES = ("label", "labels", "class", "category", "target", "sentiment", "intent", "topic", "tag", "y")


def write_config(data: str, output: str | None) -> Path:
    """Write a commented config for a file, with its columns found out.

    Raises:
        DataError: the file cannot be read, or no column can be the text or the label.
        ConfigError: the output is there already.
    """
    path = Path(output) if output else Path(f"{Path(data).stem}.yaml")
    if path.exists():
        raise ConfigError(f"{path} is there already. Remove it, or name another with --output.")
    columns = read_columns(data)
    text = guess_text(data, columns)
    label = guess_label(data, columns, text)
    job = Job().replace({"data.train": data, "data.text_column": text, "data.label_column": label})
    content = _head(data, columns, text, label) + jobfile.commented(job)
    try:
        path.write_text(content, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}. Name another with --output.") from None
    return path


def read_columns(data: str) -> dict[str, list[Any]]:
    """The first thousand rows, by column."""
    path = plain(data)
    if not Path(path).is_file():
        raise DataError(f"{data} is not there (looked in {Path.cwd()}).")
    kind = decide_format(data, "auto")
    try:
        if kind == "parquet":
            batch = next(pyarrow.parquet.ParquetFile(path).iter_batches(LOOKED_AT), None)
            return batch.to_pydict() if batch is not None else {}
        with open_text(data) as text:
            if kind in ("csv", "tsv"):
                names = read_header(data, kind, text)
                rows = [r for r in islice(csv_reader(kind, text), 1, LOOKED_AT) if len(r) == len(names)]
                return {name: [row[i] for row in rows] for i, name in enumerate(names)}
            records = _records(data, kind, text, LOOKED_AT)
    except (ValueError, OSError, RecursionError, csv.Error, pa.ArrowInvalid) as error:
        raise DataError(f"{data} cannot be read as {kind}: {error}") from None
    names = list(dict.fromkeys(name for record in records for name in record))
    return {name: [record.get(name) for record in records] for name in names}


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


def _head(data: str, columns: dict[str, list[Any]], text: str, label: str) -> str:
    labels = sorted({str(value) for value in columns[label]})
    shown = ", ".join(labels[:10]) + (", …" if len(labels) > 10 else "")
    lines = [
        f"A raylora job for {data}. Columns found: {', '.join(columns)}.",
        f"Text: '{text}'. Label: '{label}', with {len(labels)} values in the first rows: {shown}.",
        "Keys with a # are at their default.",
    ]
    # one line each: a name may hold a line break
    return "".join(f"# {' '.join(line.split())}\n" for line in lines) + "\n"
