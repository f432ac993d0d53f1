"""Which columns of a file are its texts and labels: by name, or by position where a file has no names."""

from collections.abc import Sequence

from raylora.config import DataSection
from raylora.errors import DataError


def wanted_columns(data: DataSection) -> dict[str, str]:
    """The names of the text, label and pair columns, by their keys."""
    wanted = {"data.text_column": data.text_column, "data.label_column": data.label_column}
    return wanted | ({"data.text_pair_column": data.text_pair_column} if data.text_pair_column else {})


def is_by_position(data: DataSection, names: Sequence[str]) -> bool:
    """Whether the columns are named by their positions, from 0: all are numbers, and no names of the file's own."""
    wanted = wanted_columns(data).values()
    return (
        not data.columns
        and all(name.isdecimal() and name.isascii() for name in wanted)
        and not set(wanted) <= set(names)
    )


def positions_of(path: str, found: Sequence[str], data: DataSection, hint: str = "") -> list[int]:
    """Positions of the text, label and pair columns.

    Args:
        path: of the file, for what is said.
        hint: what to do where a column is missing, with `{key}` for its key.

    Raises:
        DataError: a column is missing, or is there twice; names the ones there are.
    """
    wanted = wanted_columns(data)
    for key, name in wanted.items():
        if name not in found:
            shown = ", ".join(repr(column[:40]) for column in found[:20])
            mend = (hint or "Set `{key}`.").format(key=key)
            raise DataError(f"{path} has no column '{name}'. Columns found: {shown}. {mend}")
        check_once(path, found, name)
    return [list(found).index(name) for name in wanted.values()]


def check_once(path: str, columns: Sequence[str], name: str) -> None:
    """Raises:
    DataError: two columns are named so.
    """
    if columns.count(name) > 1:
        raise DataError(f"{path} has two columns named '{name}'. Rename one of them.")
