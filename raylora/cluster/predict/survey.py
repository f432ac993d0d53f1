"""All rows are read once before any is scored: what cannot be scored is said at once, the columns' types are known, and
so is how much there is to do. Reading takes a hundredth of the time that scoring does.
"""

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import reduce

import ray

from raylora.cluster.data.prepare import MOST_TASKS, pieces_of
from raylora.cluster.data.rows import Part, Source
from raylora.cluster.data.sources import read_rows
from raylora.cluster.data.streams import PIECE, open_input, open_table
from raylora.cluster.data.tables import schema_of as schema_of_table
from raylora.cluster.data.whole import has_types, read_chunks
from raylora.cluster.predict.columns import Types, joined, printable, types_of
from raylora.cluster.storage.filesystem import inside
from raylora.config import DataSection
from raylora.errors import DataError, EmptyFileError

SMALLEST_PART, LARGEST_PART = 2**18, 2**24  # bytes of text: some 2,500 and 150,000 short rows
PARTS = 1000  # of all data, as far as these bounds allow
SHOWN_FAULTS = 5

Fault = tuple[int, str]  # a row's place in its file, and why it cannot be scored


@dataclass(frozen=True)
class Piece:
    """What a part of file number `source` holds."""

    source: int
    part: Part
    rows: int = 0
    faults: list[Fault] = field(default_factory=list[Fault])
    types: Types = field(default_factory=Types)


def part_bytes_for(sources: Sequence[Source]) -> int:
    """About a thousandth of the data: what a lost process must do again, and the step of what is told of progress."""
    size = sum(source.size or 0 for source in sources)
    return min(max(size // PARTS, SMALLEST_PART), LARGEST_PART)


def survey(sources: list[Source], data: DataSection, kept: Sequence[str] | None, part_bytes: int) -> list[Piece]:
    """Every part of every file that holds a row, in order.

    Args:
        kept: of `predict.columns`.

    Raises:
        DataError: a file cannot be read.
    """
    pieces = pieces_of(data, sources, part_bytes)
    count = min(len(pieces), MOST_TASKS)
    groups = [pieces[i * len(pieces) // count : (i + 1) * len(pieces) // count] for i in range(count)]
    shared = ray.put(sources)
    found = ray.get([_look.remote(group, shared, data, kept) for group in groups])
    return [piece for group in found for piece in group if piece.rows]


@ray.remote(scheduling_strategy="SPREAD")
def _look(
    group: list[tuple[int, Part]], sources: list[Source], data: DataSection, kept: Sequence[str] | None
) -> list[Piece]:
    return [look(number, sources[number], part, data, kept) for number, part in group]


def look(number: int, source: Source, part: Part, data: DataSection, kept: Sequence[str] | None) -> Piece:
    """What one part holds."""
    rows, faults, types = 0, list[Fault](), Types()
    with suppress(EmptyFileError):
        if has_types(source) and source.size != 0:
            with open_table(source.path) as stream:
                types = {f.name: f.type for f in schema_of_table(source, stream, kept)}
        for chunk in read_chunks(source, data, part, []):
            rows += len(chunk.rows)
            faults += [(row.place, printable(row.fault)) for row in chunk.rows if row.fault is not None]
            types = joined(types, types_of(chunk.rows, kept))
    return Piece(number, part, rows, faults, types)


def types_in(pieces: Sequence[Piece]) -> Types:
    """Of all of them, in the order in which columns come."""
    return reduce(joined, (piece.types for piece in pieces), Types())


def bad_rows(pieces: Sequence[Piece], sources: Sequence[Source]) -> list[dict[str, str]]:
    """Places and reasons, in order."""
    return [
        {"place": sources[piece.source].place(place), "reason": reason}
        for piece in pieces
        for place, reason in piece.faults
    ]


def check_rows(pieces: Sequence[Piece], bad: Sequence[dict[str, str]], skip: bool) -> None:
    """Raises:
    DataError: there is no row that can be scored, or one that cannot is not to be skipped.
    """
    rows = sum(piece.rows for piece in pieces)
    if not rows:
        raise DataError("`predict.data` holds no rows.")
    if not bad or (skip and len(bad) < rows):
        return
    shown = "".join(f"\n  {row['place']}: {row['reason']}" for row in bad[:SHOWN_FAULTS])
    more = f"\n  and {len(bad) - SHOWN_FAULTS:,} more" if len(bad) > SHOWN_FAULTS else ""
    if len(bad) == rows:
        raise DataError(f"none of the {rows:,} rows can be scored:{shown}{more}\nIs the column of texts right?")
    raise DataError(
        f"{len(bad):,} of {rows:,} rows cannot be scored:{shown}{more}\nMend them, or leave them out with "
        "data.on_bad_row=skip (they are then listed in bad_rows.jsonl)."
    )


def digests(sources: list[Source], data: DataSection) -> list[str]:
    """sha256 of each file's bytes; of the hub, of its rows.

    Raises:
        DataError: a file cannot be read.
    """
    return ray.get([_digest.remote(source, data) for source in sources])


@ray.remote(scheduling_strategy="SPREAD")
def _digest(source: Source, data: DataSection) -> str:
    return digest_of(source, data)


def digest_of(source: Source, data: DataSection) -> str:
    """As `digests`, of one file."""
    total = hashlib.sha256()
    if source.path.startswith("hf://"):
        for row in read_rows(source, data):
            total.update(repr((row.place, row.record)).encode("utf-8", "backslashreplace"))
        return total.hexdigest()
    for path in [inside(source.path, member) for member in source.members] or [source.path]:
        total.update(json.dumps(path.rpartition("/")[2]).encode() if source.members else b"")
        with open_input(path) as stream:
            while piece := stream.read(PIECE):
                total.update(piece)
    return total.hexdigest()
