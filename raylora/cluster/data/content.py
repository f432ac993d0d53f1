"""What a file's first bytes say it is, where its name says otherwise."""

import re

from raylora.errors import DataError

LOOKED_AT = 1024

# first bytes, what they mean, what to do; of those that are letters more follows: a column may be named ORCID
KNOWN = (
    (rb"\x1f\x8b", "compressed (gzip)", "Let its name end in .gz, or unpack it: gunzip FILE."),
    (rb"BZh[1-9](1AY&SY|\x17rE8P\x90)", "compressed (bzip2)", "Let its name end in .bz2, or unpack it: bunzip2 FILE."),
    (rb"\xfd7zXZ\0", "compressed (xz)", "Unpack it: unxz FILE."),
    (rb"\x28\xb5\x2f\xfd", "compressed (zstd)", "Let its name end in .zst, or unpack it: unzstd FILE."),
    (rb"\x04\x22\x4d\x18", "compressed (lz4)", "Unpack it: unlz4 FILE."),
    (
        rb"PK\x03\x04",
        "a zip archive or an Excel workbook",
        "Let its name end in .zip, or save the sheet as csv in UTF-8.",
    ),
    (rb"\xd0\xcf\x11\xe0", "an old Office file", "Save the sheet as csv in UTF-8."),
    (rb"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", "Unpack it."),
    (rb"PAR1[\0-\x08\x0e-\x1f]", "parquet", "Let its name end in .parquet, or set data.format=parquet."),
    (rb"ARROW1\0", "an Arrow file", "Let its name end in .arrow, or set data.format=arrow."),
    (rb"\xff{4}", "an Arrow stream", "Let its name end in .arrow, or set data.format=arrow."),
    (rb"ORC.{0,7}[\0-\x07\x0e-\x19]", "ORC", "Write it as parquet."),
    (rb"Obj\x01", "Avro", "Write it as parquet."),
    (rb"SQLite format 3\0", "an SQLite database", "Write the table as csv."),
    (rb"\x89HDF", "HDF5", "Write it as parquet."),
    (rb"FEA1", "a Feather file of version 1", "Write it anew: pyarrow.feather.write_feather."),
    (rb"\s*<(?i:!doctype html|html)\b", "a web page (HTML), not data", "Name the address of the file itself."),
    (rb"%PDF-\d\.\d", "a PDF", "Write its texts as csv or jsonl."),
    (rb"\x80\x04\x95", "a pickle, which is not opened", "Write it as parquet."),
)
WORKBOOKS = (".xlsx", ".xlsm", ".xls", ".ods")
TEXT_CONTROLS = b"\t\n\r\f\v\b\x1b\x1a\x01\x1c\x1d\x1e\x1f"  # the last five part cells, in Hive's files and others


def check_text(path: str, head: bytes, encoding: str) -> None:
    """Refuse what is no text, by the first bytes of a file.

    Raises:
        DataError: says what it is and how to make text of it.
    """
    check_unpacked(path, head)
    line = head[:LOOKED_AT].partition(b"\n")[0]
    is_ascii = encoding == "utf-8-sig" or "A".encode(encoding) == b"A"
    # the first line alone: a text may hold an odd character, a header does not
    if is_ascii and any(byte < 32 and byte not in TEXT_CONTROLS for byte in line):
        _refuse_bytes(path, line)


def _refuse_bytes(path: str, line: bytes) -> None:
    """Raises:
    DataError: a first line with bytes that no text in UTF-8 has.
    """
    if _is_utf16(line):
        order = "le" if not any(line[1:-1:2]) else "be"
        raise DataError(f"{path} is UTF-16 without a byte order mark. Set data.encoding=utf-16-{order}.")
    raise DataError(f"{path} is binary, not text. Known formats: csv, tsv, txt, jsonl, json, parquet and arrow.")


def check_unpacked(path: str, head: bytes) -> None:
    """Refuse what is known to be something else.

    Raises:
        DataError: says what it is and what to do.
    """
    for begin, what, mend in KNOWN:
        if re.match(begin, head, re.DOTALL):
            if what.startswith("a zip") and path.endswith(WORKBOOKS):
                what = "an Excel workbook"
            raise DataError(f"{path} is {what}. {mend.replace('FILE', path)}")


def _is_utf16(line: bytes) -> bool:
    """Of Latin letters, without a byte order mark: every other byte is zero."""
    return len(line) > 3 and (not any(line[1:-1:2]) or not any(line[:-1:2]))
