"""The numbers of `raylora inspect`, from outlines of a few rows, worked out by hand."""

from typing import Any

import numpy as np
import pyarrow as pa

from raylora.cluster.data.facts import (
    SplitFacts,
    Tokens,
    conflicts,
    different_rows,
    facts_of,
    token_facts,
)
from raylora.cluster.data.rows import Source, Split, check_row
from raylora.config import DataSection
from raylora.scripts import script_of
from raylora.tasks import TASKS
from raylora.tasks.task import LabelCounts, NumberRange

SPLITS: tuple[Split, ...] = ("train", "validation", "test")
SOURCES = [Source(f"/x/{split}.csv", split, "csv") for split in SPLITS]
SPECIAL = 2


def outline(rows: list[tuple[int, str | None, str | None]]) -> pa.Table:
    """Of rows (file, text, label) as they are read; a token for each word."""
    checked = [check_row(place, [text, label], DataSection()) for place, (_, text, label) in enumerate(rows, 2)]
    return pa.table(
        {
            "label": pa.array([row.label for row in checked], pa.string()),
            "hash": pa.array([sum(map(ord, row.text)) for row in checked], pa.uint64()),
            "source": pa.array([source for source, _, _ in rows], pa.int32()),
            "place": pa.array([row.place for row in checked], pa.int64()),
            "fault": pa.array([row.fault for row in checked], pa.string()),
            "script": pa.array([script_of(row.text) for row in checked], pa.int8()),
            "tokens": pa.array([len(row.text.split()) + SPECIAL for row in checked], pa.int32()),
        }
    )


def facts(rows: list[tuple[int, str | None, str | None]], **data: Any) -> dict[Split, SplitFacts]:
    used = {source for source, _, _ in rows}
    assert used <= {0, 1, 2}
    return facts_of(outline(rows), SOURCES[: max(used) + 1], DataSection(**data), SPECIAL)


def test_each_split_is_told_by_itself() -> None:
    found = facts([(0, "a b", "x"), (0, "c", "y"), (0, "d", "y"), (1, "e", "x"), (2, "a b", "x"), (2, "f", "y")])
    assert [(f.rows, f.good_rows, f.files) for f in found.values()] == [(3, 3, 1), (1, 1, 1), (2, 2, 1)]
    assert list(found["train"].counts.items()) == [("y", 2), ("x", 1)]
    assert [f.in_train for f in found.values()] == [0, 0, 1]


def test_a_split_without_files_is_not_told_of_and_one_without_rows_is() -> None:
    assert list(facts([(0, "a", "x")])) == ["train"]
    found = facts([(0, "a", "x"), (2, "b", "x")])
    assert (found["validation"].rows, found["validation"].tokens, found["validation"].counts) == (0, None, {})


def test_bad_rows_are_counted_by_reason_with_the_first_places_and_stand_in_no_other_number() -> None:
    rows = [(0, "a", "x"), (0, "", "x"), (0, " ", "x"), (0, None, "x"), (0, "b", ""), (0, "a", "x")]
    train = facts(rows)["train"]
    assert (train.rows, train.bad_rows, train.good_rows, train.empty) == (6, 4, 2, 3)
    assert list(train.reasons.items()) == [("'text' is blank", 2), ("'label' is blank", 1), ("'text' is null", 1)]
    assert train.first_bad[0] == "/x/train.csv, line 3: 'text' is blank"
    assert len(train.first_bad) == 4
    assert (train.counts, train.duplicates, train.scripts) == ({"x": 2}, 1, {"Latin": 2})


def test_a_leak_is_a_row_whose_text_stands_among_the_usable_ones_of_train() -> None:
    found = facts([(0, "a", "x"), (0, "b", ""), (1, "a", "y"), (1, "a", "x"), (1, "b", "x")])
    assert found["validation"].in_train == 2


def test_duplicates_repeat_text_and_label_and_conflicts_are_texts() -> None:
    hashes = np.array([1, 1, 1, 2, 2, 3, 1], dtype=np.uint64)
    labels = np.array([0, 0, 1, 1, 1, 0, 2])
    assert different_rows(hashes, labels).tolist() == [1, 1, 1, 2, 3]
    assert different_rows(hashes[:0], labels[:0]).tolist() == []
    for texts, count in (([], 0), ([1], 0), ([1, 2, 3], 0), ([1, 1], 1), ([1, 1, 1, 2, 3], 1), ([1, 2, 2, 3, 3, 3], 2)):
        assert conflicts(np.array(texts, dtype=np.uint64)) == count
    train = facts([(0, "a", "x"), (0, "a", "x"), (0, "a", "y"), (0, "b", "y"), (0, "b", "y"), (0, "c", "x")])["train"]
    assert (train.duplicates, train.conflicts) == (2, 1)


def test_half_of_the_texts_have_at_most_p50_tokens() -> None:
    assert token_facts(np.array([3, 5, 9, 40]), 9, SPECIAL) == Tokens(p50=5, p95=40, max=40, cut=1, none=0)
    assert token_facts(np.arange(1, 101), 95, SPECIAL) == Tokens(p50=50, p95=95, max=100, cut=5, none=2)
    assert token_facts(np.array([], dtype=np.int32), 9, SPECIAL) is None


def test_scripts_are_counted_by_text() -> None:
    rows = [(0, "good", "x"), (0, "fine", "x"), (0, "хорошо", "y"), (0, "5/5", "y"), (0, "well", "x")]
    assert list(facts(rows)["train"].scripts.items()) == [("Latin", 3), ("Cyrillic", 1), ("no letters", 1)]


def test_labels_are_tallied_as_their_task_has_them() -> None:
    several, numbers = TASKS["multi_label_classification"], TASKS["regression"]
    assert several.tally({'["a", "b"]': 1, '["b"]': 1, "[]": 3}) == LabelCounts({"b": 2, "a": 1})
    assert numbers.tally({"[1.0]": 2, "[4.0]": 1}) == NumberRange(1.0, 2.0, 4.0)
    assert numbers.tally({}) == LabelCounts({})
