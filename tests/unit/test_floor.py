"""What an adapter must beat."""

import numpy as np
import pytest
from sklearn.metrics import f1_score

from raylora.config import Job
from raylora.floor import (
    Difference,
    Floor,
    FloorSplit,
    advice,
    difference,
    difference_line,
    floor_line,
    is_below,
    read_floor,
    summary,
)
from raylora.tfidf import fit_tfidf

LABELS = np.array([0, 0, 0, 1, 1, 2] * 20)


def rows_of(*texts: list[int]) -> list[np.ndarray]:
    return [np.array(text, dtype=np.int32) for text in texts]


def test_tfidf_learns_tokens_and_the_order_of_neighbours() -> None:
    train = rows_of([1, 2, 3], [3, 2, 1], [1, 2, 9], [8, 2, 1]) * 10
    ids = np.array([0, 1, 0, 1] * 10)
    model = fit_tfidf(train, ids, 2)
    assert model.outputs(rows_of([7, 1, 2], [2, 1, 7])).argmax(1).tolist() == [0, 1]


def test_tfidf_takes_texts_of_tokens_it_never_saw() -> None:
    model = fit_tfidf(rows_of([1, 1], [2, 2], [1], [2]), np.array([0, 1, 0, 1]), 2)
    assert model.outputs(rows_of([99, 100], [1])).argmax(1).tolist()[1] == 0


def against(true: np.ndarray, ours: np.ndarray, theirs: np.ndarray, metric: str, num_labels: int) -> Difference:
    return difference(FloorSplit(np.arange(len(true)), true, {"tfidf": theirs}, num_labels), ours, "tfidf", metric)


def test_a_perfect_adapter_against_one_that_is_right_four_times_in_six() -> None:
    theirs = np.where(LABELS == 1, 0, LABELS)
    gap = against(LABELS, LABELS, theirs, "accuracy", 3)
    assert gap.value == pytest.approx(1 / 3)
    # the standard error of a share of 1/3 over 120 rows is 0.043
    assert gap.low == pytest.approx(1 / 3 - 1.96 * 0.043, abs=0.015)
    assert gap.high == pytest.approx(1 / 3 + 1.96 * 0.043, abs=0.015)


def test_the_difference_in_f1_is_scikit_learns() -> None:
    random = np.random.default_rng(0)
    ours, theirs = (np.where(random.random(len(LABELS)) < share, 2, LABELS) for share in (0.1, 0.5))
    expected = f1_score(LABELS, ours, average="macro") - f1_score(LABELS, theirs, average="macro")
    for metric in ("f1", "f1_macro"):
        gap = against(LABELS, ours, theirs, metric, 3)
        assert gap.value == pytest.approx(expected)
        assert 0 < gap.low < gap.value < gap.high


def test_of_two_labels_the_difference_in_f1_is_that_of_the_positive_one() -> None:
    true = np.array([0, 1, 1, 0, 1, 0] * 20)
    random = np.random.default_rng(0)
    ours, theirs = (np.where(random.random(len(true)) < share, 0, true) for share in (0.1, 0.5))
    values = {metric: against(true, ours, theirs, metric, 2).value for metric in ("f1", "f1_macro")}
    assert values["f1"] == pytest.approx(f1_score(true, ours) - f1_score(true, theirs))
    macro = [f1_score(true, predicted, average="macro") for predicted in (ours, theirs)]
    assert values["f1_macro"] == pytest.approx(macro[0] - macro[1])
    none = FloorSplit(np.arange(3), np.zeros(3, int), {"tfidf": np.zeros(3, int)}, 2).scores("tfidf")
    assert none == {"accuracy": 1.0, "f1": 0.0, "f1_macro": 1.0}


def test_two_that_say_the_same_do_not_differ() -> None:
    gap = against(LABELS, LABELS[::-1], LABELS[::-1], "accuracy", 3)
    assert (gap.value, gap.low, gap.high) == (0, 0, 0)


def floor_of(tfidf: np.ndarray, probe: np.ndarray, rows: np.ndarray) -> Floor:
    split = FloorSplit(rows, LABELS[rows], {"tfidf": tfidf, "probe": probe}, 3)
    return Floor({"validation": split}, train_rows=480, seconds=1.25)


def test_a_floor_is_read_back_as_it_was_written() -> None:
    rows = np.arange(0, 120, 2)
    floor = floor_of(LABELS[rows][::-1], LABELS[rows], rows)
    again = read_floor(floor.to_json())
    assert again.to_json() == floor.to_json()
    assert again.splits["validation"].scores("probe") == {"accuracy": 1.0, "f1": 1.0, "f1_macro": 1.0}


def test_the_adapter_is_held_against_the_higher_baseline_on_the_floors_rows() -> None:
    rows = np.arange(60, 120)
    floor = floor_of(np.zeros(60, dtype=int), LABELS[rows], rows)
    predicted = np.where(np.arange(120) < 60, 99, LABELS)  # wrong where the floor was not looked at
    found = summary(floor, {"validation": predicted}, "accuracy")
    assert found["validation"]["highest"] == "probe"
    assert found["validation"]["difference"]["value"] == 0
    assert not is_below(found)
    assert "accuracy +0.0000 against linear probe 1.0000" in difference_line(found, "validation")
    assert (
        floor_line(found) == "TF-IDF 0.5000, linear probe 1.0000  (validation accuracy, 60 rows; 480 train rows, 1 s)"
    )


def test_an_adapter_below_its_floor_is_told_what_differs_from_the_defaults() -> None:
    rows = np.arange(120)
    found = summary(floor_of(LABELS, LABELS, rows), {"validation": np.zeros(120, dtype=int)}, "accuracy")
    assert is_below(found)
    job = Job().replace({"train.head_init": "random", "train.num_train_epochs": 1, "lora.target_modules": ["query"]})
    said = advice(job)
    for word in ("train.head_init=probe", "lora.target_modules=", "train.num_train_epochs="):
        assert word in said
    assert "Change" not in advice(Job())
