"""A first config for a data file: which column is the text and which the label, as far as the rows tell."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from raylora.cluster.data import web
from raylora.cluster.data.delimited import head_of_delimited
from raylora.cluster.data.dialects import suggest
from raylora.cluster.data.find import splits_there
from raylora.cluster.data.globs import MAGIC
from raylora.cluster.data.json_text import head_of_json
from raylora.cluster.data.rows import Source
from raylora.cluster.data.sources import sources_of
from raylora.cluster.data.streams import open_table, open_text
from raylora.cluster.data.tables import head_of_table
from raylora.cluster.data.text_folders import head_of_folder
from raylora.cluster.data.unpack import unpacked_name
from raylora.cluster.storage.filesystem import base_name
from raylora.config import DataSection, Job
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
    job = guess_job(data, wished or Job())
    columns = read_columns(data, job.data)
    content = _head(columns, job) + jobfile.commented(job)
    try:
        path.write_text(content, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}. Name another with --output.") from None
    return path


def guess_job(data: str, wished: Job) -> Job:
    """The job of a file, folder, glob or URI, with what is found out of how it is written and which columns it has.

    Raises:
        DataError: a file cannot be read, or no column can be the text or the label.
    """
    web.fetch(data, say=lambda line: None)
    sources = _first_files(data, wished.data)
    job = _set(wished, suggest(sources[0], wished.data))
    columns = read_columns(data, job.data)
    if not any(columns.values()):
        raise EmptyFileError(f"{data} holds no rows: only a header, {', '.join(columns)}.")
    text, pair = _guess_texts(data, columns, job)
    named = job.data.label_column != Job().data.label_column
    label = job.data.label_column if named else guess_label(data, columns, text)
    if _is_headless(sources[0], columns, label, job):
        return guess_job(data, _set(job, {"columns": _names(columns, text, pair, label)}))
    splits = splits_there(data, wished.data.format).splits
    found = {"train": data, "text_column": text, "text_pair_column": pair, "label_column": label}
    return _set(job, found | {split: data for split in splits if getattr(wished.data, split) is None})


def _set(job: Job, data: dict[str, Any]) -> Job:
    return job.replace({f"data.{key}": value for key, value in data.items()})


def _is_headless(source: Source, columns: dict[str, list[Any]], label: str, job: Job) -> bool:
    """Whether the header is a row: the name of its label is a label of others."""
    is_cells = source.format in ("csv", "tsv", "txt") and not job.data.columns
    return is_cells and label in map(str, columns.get(label, []))


def _names(columns: dict[str, list[Any]], text: str, pair: str | None, label: str) -> list[str]:
    roles = {text: "text", pair: "text_pair", label: "label"}
    return [roles.get(name, f"column_{i}") for i, name in enumerate(columns)]


def _name_for(data: str) -> str:
    stem = Path(base_name(unpacked_name(data))).stem
    return f"{'data' if MAGIC.search(stem) else stem}.yaml"


def _first_files(data: str, section: DataSection) -> list[Source]:
    """Raises:
    DataError: nothing is there, or it is on the hub.
    """
    if data.startswith("hf://"):
        raise DataError(f"{data} is on the hub, where columns are not looked up: set `data.text_column` yourself.")
    return sources_of(data, "train", section, FILES_LOOKED_AT)


def read_columns(data: str, section: DataSection | None = None) -> dict[str, list[Any]]:
    """The first thousand rows of a file, or of the first files of a folder or glob, by column.

    Raises:
        DataError: nothing is there, or it cannot be read.
    """
    section = section or DataSection()
    files = _first_files(data, section)
    tables: list[dict[str, list[Any]]] = []
    empty: EmptyFileError | None = None
    for file in files:
        try:
            tables.append(_columns_of(file, section, LOOKED_AT // len(files)))
        except EmptyFileError as error:
            empty = error
    if empty and not tables:
        raise empty
    names = dict.fromkeys(name for table in tables for name in table)
    return {name: [value for table in tables for value in _column(table, name)] for name in names}


def _column(table: dict[str, list[Any]], name: str) -> list[Any]:
    return table.get(name) or [None] * max(map(len, table.values()), default=0)


def _columns_of(file: Source, section: DataSection, most: int) -> dict[str, list[Any]]:
    try:
        if file.format == "text":
            return head_of_folder(file, section, most)
        if file.format in ("parquet", "arrow"):
            if file.size == 0:
                raise EmptyFileError(f"{file.path} is empty.")
            with open_table(file.path) as stream:
                return head_of_table(file.path, file.format, stream, most)
        with open_text(file.path, declared=section.encoding) as text:
            read = head_of_json if file.format in ("json", "jsonl") else head_of_delimited
            return read(file.path, file.format, text, section, most)
    except (ValueError, OSError, RecursionError, csv.Error, pa.ArrowException) as error:
        raise DataError(f"{file.path} cannot be read as {file.format}: {error}") from None


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
        *(
            [f"The first line is taken for a row, and the columns are named {', '.join(data.columns)}."]
            if data.columns
            else []
        ),
        *([f"Not UTF-8: read as {data.encoding}. Look whether it should be so."] if data.encoding else []),
        "Keys with a # are at their default.",
    ]
    # one line each: a name may hold a line break
    return "".join(f"# {' '.join(line.split())}\n" for line in lines) + "\n"
