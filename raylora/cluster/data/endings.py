"""What a file's ending says of its format, and its first bytes where the ending says too little."""

import json
import os

from raylora.cluster.data.content import LOOKED_AT, WORKBOOKS, check_unpacked
from raylora.cluster.data.streams import open_input, unpacked
from raylora.cluster.data.unpack import member_name, packing_of, unpacked_name
from raylora.cluster.storage.filesystem import parts
from raylora.errors import DataError

EXTENSIONS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".txt": "txt",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
}
KNOWN = "csv, tsv, txt, jsonl, json, parquet or arrow"
FIRST_LINE = 2**16  # bytes in which the first line of JSON ends, where there is one object per line


def ending_of(path: str) -> str:
    """In lower case, without that of a compression: `.csv` of a.CSV.gz; `.zip` of a zip that has no other."""
    ending = os.path.splitext(unpacked_name(path))[1].lower()
    return ending if ending in EXTENSIONS else os.path.splitext(parts(path)[0])[1].lower()


def decide_format(path: str, chosen: str) -> str:
    """The format of a file: as chosen, or by its ending; JSON with an object per line, as Spark writes it, is jsonl.

    Raises:
        DataError: the ending tells nothing, or the content is of no known format.
    """
    if chosen != "auto" or path.startswith("hf://"):
        return chosen
    ending = ending_of(path)
    if ending in WORKBOOKS:
        raise DataError(f"{path} is an Excel workbook. Save the sheet as csv in UTF-8.")
    if ending == ".zip":
        with open_input(path) as stream:
            ending = os.path.splitext(member_name(path, stream))[1].lower()
    if ending not in EXTENSIONS:
        if not packing_of(path):
            check_unpacked(path, head_of(path))
        raise DataError(f"{path}: the ending '{ending}' tells no format. Set `data.format` to {KNOWN}.")
    kind = EXTENSIONS[ending]
    return "jsonl" if kind == "json" and _is_lines(head_of(path, FIRST_LINE)) else kind


def head_of(path: str, size: int = LOOKED_AT) -> bytes:
    """The first bytes of a file, or of what is packed in it; none where it cannot be read."""
    try:
        with unpacked(path) as stream:
            return stream.read(size)
    except (OSError, DataError):
        return b""


def _is_lines(head: bytes) -> bool:
    """Whether the first line is an object, and another begins on the next."""
    first, _, rest = head.removeprefix(b"\xef\xbb\xbf").lstrip().partition(b"\n")
    if not first.startswith(b"{") or not rest.lstrip().startswith(b"{"):
        return False
    try:
        return isinstance(json.loads(first), dict)
    except (ValueError, RecursionError):
        return False
