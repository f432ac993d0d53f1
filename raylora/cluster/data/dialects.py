"""How a file is written, as far as its first rows tell: what `raylora init` sets in a config, for the user to see."""

from typing import Any

from raylora.cluster.data.delimited import DELIMITERS, SNIFFED, Dialect, evenness, read_header, readable, told_by_rows
from raylora.cluster.data.encodings import encoding_of, is_utf8
from raylora.cluster.data.endings import head_of
from raylora.cluster.data.rows import BY_LINES, Source
from raylora.cluster.data.streams import open_text
from raylora.cluster.data.suggest import likely
from raylora.config import DataSection
from raylora.errors import EmptyFileError

ODD = ("::", "||", "~", "^", "\x01", "§", "¦", "#", ":")  # as MovieLens, Hive and mainframes write them

CLEARLY = 0.1  # of all rows


def suggest(source: Source, data: DataSection) -> dict[str, Any]:
    """Of `encoding`, `delimiter` and `quoting` those that the file needs and the config does not set."""
    if source.format not in (*BY_LINES, "json"):
        return {}
    encoding = None if data.encoding else _encoding(source)
    found: dict[str, Any] = {"encoding": encoding} if encoding else {}
    if source.format in ("csv", "tsv", "txt"):
        found |= _dialect(source, data.model_copy(update=found))
    return found


def _encoding(source: Source) -> str | None:
    head = head_of(source.path, SNIFFED)
    if not is_utf8(encoding_of(source.path, head, None)):
        return None
    text = head.decode("utf-8", "surrogateescape")
    cut = text[-4:].encode("utf-8", "surrogateescape").decode("utf-8", "ignore")  # a character may be cut at the end
    return likely(text[:-4] + cut)


def _dialect(source: Source, data: DataSection) -> dict[str, Any]:
    with open_text(source.path, declared=data.encoding) as text:
        head = text.read(SNIFFED)
        text.seek(0)
        try:
            dialect = read_header(source.path, source.format, text, data).dialect
        except EmptyFileError:
            return {}
    found: dict[str, Any] = {}
    delimiter = _other_delimiter(head, dialect.delimiter) if not data.delimiter and source.format != "tsv" else None
    if delimiter:
        found["delimiter"] = delimiter
        dialect = Dialect(delimiter, dialect.quoting)
    if data.quoting == "auto" and _is_other(head, dialect):
        found["quoting"] = "backslash"
    return found


def _other_delimiter(head: str, told: str) -> str | None:
    """One that cuts the rows more evenly than that of the first line, which may be a row, a text full of commas."""
    first = head.lstrip("\r\n").split("\n")[0]
    if told == "|" and "||" in first:  # as even, with an empty column in between
        return "||" if evenness(head, "||") > 1 - CLEARLY else None
    usual = told_by_rows(head, DELIMITERS if any(mark in first for mark in DELIMITERS) else ODD)
    even = evenness(head, usual) > evenness(head, told) + CLEARLY
    return usual if usual in first and usual != told and even else None


def _is_other(head: str, dialect: Dialect) -> bool:
    """Whether quotes are escaped by backslashes: so every row can be read, and as now some cannot."""
    if dialect.quoting != "doubled" or '\\"' not in head:
        return False
    return _broken(head, Dialect(dialect.delimiter, "backslash")) < _broken(head, dialect)


def _broken(head: str, dialect: Dialect) -> int:
    lines = head.splitlines(keepends=True)[:-1] or [head]
    return sum(cells is None for cells in readable(lines, dialect))
