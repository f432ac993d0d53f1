"""A run that goes on learns from the rows it began with."""

import json
from collections.abc import Mapping
from typing import Any

from raylora.cluster.storage.run_folder import DATA, RunFolder
from raylora.errors import DataError

Facts = Mapping[str, Any]  # of `dataset.Dataset`: files, rows by split and label, fingerprint
SHOWN = 10


def check_same_rows(facts: Facts, folder: RunFolder) -> None:
    """Keep what the data of a run is, and hold the run to it from then on. Files may have other names.

    Raises:
        DataError: a text, a label or a row is another; says what can be told of it.
    """
    if not folder.has(DATA):
        folder.write_json(DATA, facts)
        return
    before: Facts = json.loads(folder.read_text(DATA))
    # the fingerprint is of texts and label ids, the rows are by the labels' names
    if (before["fingerprint"], before["rows"]) != (facts["fingerprint"], facts["rows"]):
        raise DataError(
            f"the data is not what run {folder.uri} began with:\n  "
            + "\n  ".join(changes(before, facts)[:SHOWN])
            + "\nIt goes on only with that: bring it back, or choose another `run_name`."
        )


def changes(before: Facts, now: Facts) -> list[str]:
    """What differs, a line each."""
    gone = [f"file {name} is gone" for name in before["files"] if name not in now["files"]]
    new = [f"file {name} is new" for name in now["files"] if name not in before["files"]]
    counts = [
        f"{split}: {_count(before, split, label)} -> {_count(now, split, label)} rows of '{label}'"
        for split in dict.fromkeys([*before["rows"], *now["rows"]])
        for label in dict.fromkeys([*before["rows"].get(split, {}), *now["rows"].get(split, {})])
        if _count(before, split, label) != _count(now, split, label)
    ]
    others = "as many rows of each label, but other texts, other numbers, or labels that changed places"
    return [*gone, *new, *counts] or [others]


def _count(facts: Facts, split: str, label: str) -> int:
    return facts["rows"].get(split, {}).get(label, 0)
