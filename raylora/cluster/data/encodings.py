"""How the bytes of a text file become characters: by its byte order mark, as declared, else UTF-8. Never guessed."""

import codecs
import re
from collections.abc import Sequence

from raylora.cluster.data.rows import Row
from raylora.errors import DataError

UTF8 = "utf-8"
BOM = codecs.BOM_UTF8
BOMS = (  # UTF-32 first: its mark begins with that of UTF-16
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
NEED_MARK = ("utf-16", "utf-32")  # or nobody knows the order of their bytes
KEPT = "raylora.kept"  # the name, among Python's, of what becomes of undecodable bytes
LONE = re.compile("[\ud800-\udfff]")


def encoding_of(path: str, head: bytes, declared: str | None) -> str:
    """Python's name of a file's encoding: a byte order mark is surer than what the config declares.

    Raises:
        DataError: UTF-16 is declared, whose byte order is not, and the file does not tell it.
    """
    for mark, name in BOMS:
        if head.startswith(mark):
            return name
    encoding = codecs.lookup(declared).name if declared else UTF8
    if head and encoding in NEED_MARK:
        raise DataError(f"{path} has no byte order mark. Set data.encoding={encoding}-le, or {encoding}-be.")
    return encoding


def is_utf8(encoding: str) -> bool:
    return encoding in (UTF8, "utf-8-sig")


def can_be_cut(encoding: str) -> bool:
    """Whether what tells rows apart can be found byte by byte: in UTF-8 and encodings of one byte a character."""
    ascii_bytes = bytes(range(128))
    if ascii_bytes.decode(encoding, "replace") != ascii_bytes.decode("ascii"):
        return False
    pairs = [bytes([byte, ord("A")]).decode(encoding, "replace") for byte in range(128, 256)]
    return all(len(pair) == 2 and pair[1] == "A" for pair in pairs)


def errors_of(encoding: str) -> str:
    """How undecodable bytes are kept, as lone surrogates, so that one bad row does not cost the file."""
    if is_utf8(encoding):
        return "surrogateescape"
    codecs.register_error(KEPT, _keep)  # surrogateescape refuses bytes below 128, of which UTF-16 has many
    return KEPT


def _keep(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    # a decoder may name bytes beyond those that it was given
    end = max(min(error.end, len(error.object)), error.start + 1)
    return "".join(chr(0xDC00 + byte) for byte in error.object[error.start : end]), end


def undecodable(place: int, values: Sequence[object], names: Sequence[str], encoding: str) -> Row | None:
    """A fault of a row that holds bytes which are not of the file's own encoding; of UTF-8 `check_row` says it."""
    if is_utf8(encoding):
        return None
    for value, name in zip(values, names, strict=True):
        found = LONE.search(value) if isinstance(value, str) else None
        if found:
            byte = f"byte 0x{ord(found[0]) & 0xFF:02x} at character {found.start()}"
            return Row(place, fault=f"'{name}' is not {encoding.upper()}: {byte}")
    return None
