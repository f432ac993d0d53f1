"""The files of a job: found, opened, read row by row. Knows no ray: Ray Data calls `read_rows` in its tasks."""

import codecs
import glob
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from raylora.cluster.data import formats
from raylora.cluster.data.rows import Row, Source, Split
from raylora.cluster.storage.filesystem import inside, is_remote, locate, plain
from raylora.config import DataSection
from raylora.demo import REVIEWS
from raylora.errors import DataError

EXTENSIONS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".parquet": "parquet",
}


def list_sources(data: DataSection) -> list[Source]:
    """The files of every split, in a fixed order; the head of the first of each split is read at once.

    Raises:
        DataError: nothing is there, a file is empty or not of its format, a column is missing.
    """
    sources: list[Source] = []
    named: list[tuple[Split, str | list[str] | None]] = [
        ("train", data.train or str(REVIEWS)),
        ("validation", data.validation),
        ("test", data.test),
    ]
    for split, where in named:
        patterns = [where] if isinstance(where, str) else where or []
        paths = [path for pattern in patterns for path in _paths(pattern)]
        found = [Source(path, split, decide_format(path, data.format)) for path in paths]
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
        raise DataError(f"{source.path} holds no rows: {'it is empty' if _is_empty(source) else 'only a header'}.")


def read_rows(source: Source, data: DataSection) -> Iterator[Row]:
    """Every record of a file, in order, bad ones too.

    Raises:
        DataError: the file as a whole cannot be read.
    """
    if source.path.startswith("hf://"):
        yield from formats.hub_rows(source, data)
        return
    if source.format == "parquet":
        with open_input(source.path) as stream:
            yield from formats.parquet_rows(source, stream, data)
        return
    reader = {"jsonl": formats.jsonl_rows, "json": formats.json_rows}.get(source.format, formats.csv_rows)
    with open_text(source.path) as text:
        yield from reader(source, text, data)


def open_input(path: str) -> IO[bytes]:
    """A readable, seekable stream of a local path or any URI that pyarrow knows (s3://, gs://, hdfs://)."""
    try:
        return locate(path).open()
    except OSError as error:
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
    if is_remote(pattern):
        return _remote_paths(pattern)
    path = Path(plain(pattern))  # relative still: what a glob finds must not hang on the working directory's name
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
        place = locate(uri)
        stat = place.stat()
        if stat and not stat.is_folder:
            return [uri]
        names = sorted(name for name in place.files() if os.path.splitext(name)[1].lower() in EXTENSIONS)
    except OSError as error:
        raise DataError(f"{uri} cannot be reached: {error}") from None
    if not names:
        raise DataError(f"{uri} is not there, or a folder without a data file ({' '.join(EXTENSIONS)}).")
    return [inside(uri, name) for name in names]


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


def _is_empty(source: Source) -> bool:
    stat = None if source.path.startswith("hf://") else locate(source.path).stat()
    return stat is not None and stat.size == 0
