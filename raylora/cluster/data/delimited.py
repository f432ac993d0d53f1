"""csv, tsv and txt: rows of cells, with any delimiter, with a header or without.

Python's `csv`, not pyarrow's: pyarrow tells a bad row's number only by luck (not while it reads with several threads,
and never the line where its cells hold line breaks), drops what a quote left open swallowed, and refuses a whole file
for one undecodable byte. pandas, on which `datasets` builds, has neither the line nor the row.
"""

import csv
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, TextIO

from raylora.cluster.data.columns import check_once, is_by_position, positions_of
from raylora.cluster.data.encodings import is_utf8, undecodable
from raylora.cluster.data.rows import Part, Row, Source, check_row
from raylora.config import DataSection
from raylora.errors import DataError, EmptyFileError

if TYPE_CHECKING:
    from _csv import Reader

LONGEST_CELL = 2**27  # bytes; csv's own limit of 128 KiB refuses long documents
LONGEST_NAME = 40  # characters of a column's name; what is longer looks like a text
SNIFFED = 2**16  # characters in which a header ends
SNIFFED_ROWS = 50
DELIMITERS = ",;\t|"
SPELLED = {"\\t": "\t", "tab": "\t", "space": " "}
STAND_IN = "\U0010fffe"  # no character: csv parts cells at one character, so this stands for a longer delimiter
QUOTED = re.compile(r'(?:^|(?<=[,;\t|]))"(?:[^"]|"")*"')
WHOLE_FLOAT = re.compile(r"-?(0|[1-9]\d{0,14})\.0+")
COMMA_NUMBER = re.compile(r"[+-]?(\d+|\d{1,3}(\.\d{3})+)(,\d+)?")


@dataclass(frozen=True)
class Dialect:
    """How rows are written. `quoting` is doubled, backslash or none."""

    delimiter: str
    quoting: str = "doubled"

    def in_bytes(self, encoding: str) -> "Dialect":
        """The same where each byte is read as a character."""
        encoding = "utf-8" if is_utf8(encoding) else encoding  # utf-8-sig would put a mark before it
        return Dialect(self.delimiter.encode(encoding).decode("latin-1"), self.quoting)


@dataclass(frozen=True)
class Header:
    """Column names, and how rows are written. `is_row`: the file has no header, its first line is a row. `hint` follows
    what csv says of a broken row."""

    names: list[str]
    dialect: Dialect
    is_row: bool = False
    width: str = "the header has"
    hint: str = ""


class Rows:
    """Rows of cells from lines, blank lines as empty ones. `line_num` counts the lines that were read.

    Iterating raises csv.Error for a broken row, and goes on after it.
    """

    def __init__(self, lines: Iterable[str], dialect: Dialect) -> None:
        csv.field_size_limit(LONGEST_CELL)
        self._long = dialect.delimiter if len(dialect.delimiter) > 1 else None
        if self._long:
            lines = (line.replace(self._long, STAND_IN) for line in lines)
        options: dict[str, Any] = {"delimiter": STAND_IN if self._long else dialect.delimiter}
        if dialect.quoting == "none":
            options["quoting"] = csv.QUOTE_NONE
        else:
            options |= {"strict": True, "escapechar": "\\" if dialect.quoting == "backslash" else None}
        self._reader: Reader = csv.reader(lines, **options)

    @property
    def line_num(self) -> int:
        return self._reader.line_num

    def __iter__(self) -> "Rows":
        return self

    def __next__(self) -> list[str]:
        if not self._long:
            return next(self._reader)
        try:
            return [cell.replace(STAND_IN, self._long) for cell in next(self._reader)]
        except csv.Error as error:
            raise csv.Error(str(error).replace(STAND_IN, self._long)) from None


def delimited_rows(source: Source, text: TextIO, data: DataSection, header: Header, part: Part) -> Iterator[Row]:
    names = header.names
    positions = positions_of(source.path, names, data, _hint(source.format, header))
    wanted = [names[i] for i in positions]
    encoding: str = text.encoding
    rows = Rows(text, header.dialect)
    if not part.start and not header.is_row:
        next(filter(None, rows))
    while True:
        place = part.before + rows.line_num + 1
        try:
            cells = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            yield Row(place, fault=f"broken row: {error}{header.hint}")
            continue
        if not cells:
            continue
        if len(cells) != len(names):
            yield Row(place, fault=f"{header.width} {len(names)} fields, this row {len(cells)}")
            continue
        values: list[Any] = [cells[i] for i in positions]
        fault = undecodable(place, values, wanted, encoding)
        values[1] = _label(values[1], data)
        yield fault or check_row(place, values, data, dict(zip(names, cells, strict=True)))


def _label(cell: str, data: DataSection) -> str | int:
    """A cell's label, or several between separators, each as if it stood alone."""
    separator = data.label_separator
    if separator is None or separator not in cell:
        return _number(cell, data)
    return separator.join(str(_number(each, data)) for each in cell.split(separator))


def _number(label: str, data: DataSection) -> str | int:
    """A csv has no types: 1.0 is what pandas writes of an int where another is missing."""
    number = label.strip()
    if not number[-1:].isdigit() or number in (data.labels or ()):
        return label
    if data.decimal == "," and COMMA_NUMBER.fullmatch(number):
        label = number = number.replace(".", "").replace(",", ".")
    if number.endswith("0") and WHOLE_FLOAT.fullmatch(number):
        return int(float(number))
    return label


def _hint(kind: str, header: Header) -> str:
    names = header.names
    if header.is_row:
        return "Set `{key}` to one of them, or to a column's position, from 0."
    if kind == "tsv" and len(names) == 1 and re.search("[,;|]", names[0]):
        return "There is no tab in its first line: set data.format=csv."
    if any(re.search("[\udc80-\udcff]", name) for name in names):
        return "Its first line is not UTF-8: set data.encoding, or convert it, iconv -f ENCODING -t UTF-8."
    if any(name.count(" ") > 2 or len(name) > LONGEST_NAME or name.isdecimal() for name in names):
        return (
            "Set `{key}`. Is that a row? Then name the columns, data.columns=[text, label], or set data.text_column=0 "
            "and data.label_column=1 (by position), or put a line of column names before it."
        )
    if len(names) == 1:
        return "Set `{key}`, or `data.delimiter` where that is more than one column."
    return ""


def read_header(path: str, kind: str, text: TextIO, data: DataSection) -> Header:
    """Of a csv, tsv or txt: what its first line that is not blank, and the config, say. Leaves the stream at its begin.

    Raises:
        EmptyFileError: the file has no such line.
        DataError: it cannot be read.
    """
    head = text.read(SNIFFED)
    text.seek(0)
    dialect = _dialect(kind, head, data)
    try:
        first = next(filter(None, Rows(text, dialect)), [])
    except csv.Error as error:
        raise DataError(f"{path}: the header cannot be read: {error}.") from None
    if not first:
        start = "" if data.columns else f": a {kind} file starts with a line of column names"
        raise EmptyFileError(f"{path} is empty{start}.")
    text.seek(0)
    return _header(first, dialect, data, _broken_hint(head, dialect))


def _header(first: list[str], dialect: Dialect, data: DataSection, hint: str) -> Header:
    names = [name.strip() for name in first]
    if data.columns:
        return Header(list(data.columns), dialect, True, "`data.columns` names", hint)
    if is_by_position(data, names):
        return Header([str(i) for i in range(len(names))], dialect, True, "the first row has", hint)
    return Header(names, dialect, hint=hint)


def _broken_hint(head: str, dialect: Dialect) -> str:
    return (
        " (quotes with a backslash? Set data.quoting=backslash)"
        if dialect.quoting == "doubled" and ('\\"' in head)
        else ""
    )


def _dialect(kind: str, head: str, data: DataSection) -> Dialect:
    if data.delimiter:
        delimiter = SPELLED.get(data.delimiter, data.delimiter)
    elif kind == "tsv":
        delimiter = "\t"
    elif data.columns or is_by_position(data, []):
        delimiter = told_by_rows(head, DELIMITERS, len(data.columns or ()) or None)
    else:
        delimiter = _told_by_header(head)
    literal = kind == "tsv" or (kind == "txt" and delimiter == "\t")
    return Dialect(delimiter, ("none" if literal else "doubled") if data.quoting == "auto" else data.quoting)


def _told_by_header(head: str) -> str:
    header = re.split(r"[\r\n]", QUOTED.sub("", head.lstrip("\r\n")), maxsplit=1)[0]
    return max(DELIMITERS, key=header.count)


def told_by_rows(head: str, delimiters: Sequence[str], width: int | None = None) -> str:
    """The delimiter that cuts the first rows most evenly: into `width` cells where that is known, at least into two."""
    return max(delimiters, key=lambda delimiter: evenness(head, delimiter, width))


def evenness(head: str, delimiter: str, width: int | None = None) -> float:
    """The share of rows of one width; of one column nothing. At equal shares narrower rows: texts hold commas."""
    lines = head.splitlines(keepends=True)[: SNIFFED_ROWS + 1]
    lines = lines[:-1] if len(lines) > 1 and not lines[-1].endswith(("\n", "\r")) else lines
    dialect = Dialect(delimiter, "none" if delimiter == "\t" else "doubled")
    widths = Counter(1 if cells is None else len(cells) for cells in readable(lines, dialect) if cells != [])
    wanted = width or max((w for w in widths if w > 1), key=lambda w: widths[w], default=0)
    return widths[wanted] / max(widths.total(), 1) - wanted / 1e6


def readable(lines: Sequence[str], dialect: Dialect) -> Iterator[list[str] | None]:
    """Rows of cells; None for each that is broken."""
    rows = Rows(lines, dialect)
    while True:
        try:
            yield next(rows)
        except StopIteration:
            return
        except csv.Error:
            yield None


def head_of_delimited(path: str, kind: str, text: TextIO, data: DataSection, most: int) -> dict[str, list[Any]]:
    """The first rows that are as wide as the header, by column."""
    header = read_header(path, kind, text, data)
    for name in filter(None, header.names):
        check_once(path, header.names, name)
    rows = Rows(text, header.dialect)
    if not header.is_row:
        next(filter(None, rows))
    whole = [row for row in islice(rows, most) if len(row) == len(header.names)]
    return {name: [row[i] for row in whole] for i, name in enumerate(header.names)}
