"""What a file's first bytes say it is, where its name says otherwise."""

from raylora.errors import DataError

LOOKED_AT = 1024

# first bytes, what they mean, what to do
KNOWN = (
    (b"\x1f\x8b", "compressed (gzip)", "Unpack it: gunzip FILE."),
    (b"BZh", "compressed (bzip2)", "Unpack it: bunzip2 FILE."),
    (b"\xfd7zXZ\0", "compressed (xz)", "Unpack it: unxz FILE."),
    (b"\x28\xb5\x2f\xfd", "compressed (zstd)", "Unpack it: unzstd FILE."),
    (b"\x04\x22\x4d\x18", "compressed (lz4)", "Unpack it: unlz4 FILE."),
    (b"PK\x03\x04", "a zip archive or an Excel workbook", "Unpack it, or save the sheet as csv in UTF-8."),
    (b"\xd0\xcf\x11\xe0", "an old Office file", "Save the sheet as csv in UTF-8."),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", "Unpack it."),
    (b"PAR1", "parquet", "Let its name end in .parquet, or set data.format=parquet."),
    (b"ARROW1", "an Arrow file", "Write it as parquet."),
    (b"\xff\xff\xff\xff", "an Arrow stream", "Write it as parquet: datasets.load_from_disk(FOLDER).to_parquet(FILE)."),
    (b"ORC", "ORC", "Write it as parquet."),
    (b"Obj\x01", "Avro", "Write it as parquet."),
    (b"SQLite format 3\0", "an SQLite database", "Write the table as csv."),
    (b"\x89HDF", "HDF5", "Write it as parquet."),
    (b"%PDF", "a PDF", "Write its texts as csv or jsonl."),
    (b"\x80\x04\x95", "a pickle, which is not opened", "Write it as parquet."),
)
TEXT_CONTROLS = b"\t\n\r\f\v\b\x1b\x1a"


def check_text(path: str, head: bytes, kind: str) -> None:
    """Refuse what is no text in UTF-8, by the first bytes of a file.

    Raises:
        DataError: says what it is and how to make text of it.
    """
    check_unpacked(path, head)
    line = head[:LOOKED_AT].partition(b"\n")[0]
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) or _is_utf16(line):
        raise DataError(f"{path} is UTF-16, not UTF-8. Convert it: iconv -f UTF-16 -t UTF-8.")
    # the first line alone: a text may hold an odd character, a header does not
    if any(byte < 32 and byte not in TEXT_CONTROLS for byte in line):
        raise DataError(f"{path} is binary, not {kind}. Known formats: csv, tsv, jsonl, json and parquet.")


def check_unpacked(path: str, head: bytes) -> None:
    """Refuse what is known to be something else.

    Raises:
        DataError: says what it is and what to do.
    """
    for begin, what, mend in KNOWN:
        if head.startswith(begin):
            if begin == b"PK\x03\x04" and path.endswith((".xlsx", ".xlsm", ".ods")):
                what = "an Excel workbook"
            raise DataError(f"{path} is {what}. {mend.replace('FILE', path)}")


def _is_utf16(line: bytes) -> bool:
    """Of Latin letters, without a byte order mark: every other byte is zero."""
    return len(line) > 3 and (not any(line[1:-1:2]) or not any(line[:-1:2]))
