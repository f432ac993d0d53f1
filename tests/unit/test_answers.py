"""What callers are answered, for every task: labels, scores, thresholds, promises, and both shapes of it."""

import math
from typing import Any

import numpy as np
import pytest

from raylora.errors import ConfigError
from raylora.tasks import TASKS, Learned, Prediction, Wish, task_of
from raylora.tasks.answers import LabelScore

SINGLE, MULTI, NUMBERS = (
    TASKS["single_label_classification"],
    TASKS["multi_label_classification"],
    TASKS["regression"],
)
MIN_SCORES = {"0.9": {"score": 0.7, "coverage": 0.8, "rows": 80, "error": 0.03}}
SURE = Learned(("no", "yes"), min_scores=MIN_SCORES)
TAGS = Learned(("joy", "love", "anger"), thresholds={"joy": 0.6, "love": 0.3, "anger": 0.5})
STARS = Learned(("stars", "votes"))


def logit(probability: float) -> float:
    return math.log(probability / (1 - probability))


def outputs(*rows: list[float]) -> np.ndarray:
    """[N, C] float32 whose sigmoid is this."""
    return np.array([[logit(p) for p in row] for row in rows], dtype=np.float32)


def listed(task_type: str, rows: np.ndarray, learned: Learned, wish: Wish) -> list[list[tuple[str | None, float]]]:
    task = TASKS[task_type]  # pyright: ignore[reportArgumentType]
    found = task.answers(rows, learned, wish)
    return [[(each.label, each.score) for each in task.listed(one, wish)] for one in found]


def test_a_single_label_is_the_one_of_the_highest_probability() -> None:
    (found,) = SINGLE.answers(np.array([[0.0, math.log(3)]]), SURE)
    assert (found.label, found.labels, list(found.scores)) == ("yes", ("yes",), ["yes", "no"])
    assert (found.score, found.scores["no"]) == (pytest.approx(0.75), pytest.approx(0.25))
    assert SINGLE.answers(np.array([[0.5, 0.5]]), SURE)[0].label == "no"  # the earlier of equals
    assert SINGLE.answers(np.empty((0, 2)), SURE) == []


def test_a_label_below_the_score_of_the_promised_accuracy_is_left_out() -> None:
    rows = np.array([[0.0, math.log(3)], [math.log(2), 0.0]])  # 0.75 and 0.667; 0.7 is needed
    sure, unsure = SINGLE.answers(rows, SURE, Wish(min_accuracy=0.9))
    assert (sure.label, sure.labels) == ("yes", ("yes",))
    assert (unsure.label, unsure.labels, unsure.score) == (None, (), pytest.approx(2 / 3))
    assert list(unsure.scores) == ["no", "yes"]
    assert SINGLE.listed(unsure, Wish(min_accuracy=0.9)) == [LabelScore(None, unsure.score)]
    assert [each.label for each in SINGLE.listed(sure)] == ["yes", "no"]
    assert SINGLE.columns(unsure) == ["-", "0.6667"] and SINGLE.columns(sure) == ["yes", "0.7500"]


def test_what_is_decided_does_not_depend_on_the_function_of_the_scores_told() -> None:
    rows = np.array([[0.0, math.log(3)], [math.log(2), 0.0]])
    found = SINGLE.answers(rows, SURE, Wish(function="none", min_accuracy=0.9))
    assert [each.label for each in found] == ["yes", None]
    assert [each.score for each in found] == pytest.approx([math.log(3), math.log(2)])
    (tagged,) = MULTI.answers(outputs([0.5, 0.4, 0.2]), TAGS, Wish(function="none"))
    assert (tagged.labels, tagged.score) == (("love",), pytest.approx(logit(0.4), abs=1e-6))


@pytest.mark.parametrize(
    ("learned", "accuracy", "said"),
    [
        (
            SURE,
            0.95,
            r"`min_accuracy` 0\.95 is not among what this adapter promises, which is 0\.9 \(80\.0 % of texts\)",
        ),
        (Learned(("a", "b")), 0.9, r"promises, which is none: its validation rows bore none out, or it was saved"),
    ],
)
def test_an_accuracy_that_is_not_promised_is_refused_with_what_is(learned: Learned, accuracy: float, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        SINGLE.check(Wish(min_accuracy=accuracy), learned)


@pytest.mark.parametrize("wrong", [2, -0.1, 7, math.nan, math.inf, "0.5", True, [0.5], np.float64(1.5)])
def test_a_share_that_is_none_is_refused_whatever_the_task(wrong: Any) -> None:
    for task in TASKS.values():
        with pytest.raises(ConfigError, match=r"`threshold` must be a number from 0 to 1, found "):
            task.check(Wish(threshold=wrong), TAGS)
        with pytest.raises(ConfigError, match=r"`min_accuracy` must be a number between 0 and 1, found "):
            task.check(Wish(min_accuracy=wrong), SURE)


def test_the_ends_of_a_share() -> None:
    for end in (0, 1, 0.0, 1.0, np.float32(0.5)):
        MULTI.check(Wish(threshold=end), TAGS)  # pyright: ignore[reportArgumentType] - numpy's
    for end in (0, 1):
        with pytest.raises(ConfigError, match="`min_accuracy` must be a number between 0 and 1"):
            SINGLE.check(Wish(min_accuracy=end), SURE)


def test_wishes_of_another_task_are_refused() -> None:
    for task, wish, name in (
        (MULTI, Wish(min_accuracy=0.9), "min_accuracy"),
        (NUMBERS, Wish(min_accuracy=0.9), "min_accuracy"),
        (SINGLE, Wish(threshold=0.5), "threshold"),
        (NUMBERS, Wish(threshold=0.0), "threshold"),
    ):
        with pytest.raises(ConfigError, match=f"`{name}` is of .*, and this adapter's task is {task.problem_type}"):
            task.check(wish, SURE)
    MULTI.check(Wish(threshold=0.5, top_k=2, function="sigmoid"), TAGS)
    SINGLE.check(Wish(min_accuracy=0.9, top_k=2), SURE)


def test_several_labels_are_those_that_reach_their_own_thresholds() -> None:
    both, one, none = MULTI.answers(outputs([0.6001, 0.9, 0.49], [0.59, 0.31, 0.1], [0.55, 0.2, 0.1]), TAGS)
    assert (both.label, both.labels, both.score) == ("love", ("love", "joy"), pytest.approx(0.9))
    assert list(both.scores) == ["love", "joy", "anger"]
    assert (one.label, one.labels, one.score) == ("love", ("love",), pytest.approx(0.31))  # joy's is higher: not enough
    assert (none.label, none.labels, none.score) == (None, (), pytest.approx(0.55))
    assert MULTI.answers(outputs([0.6, 0.4, 0.1]), Learned(TAGS.labels))[0].labels == ("joy",)  # one half without


def test_several_labels_are_listed_by_threshold_or_by_rank() -> None:
    row = outputs([0.55, 0.4, 0.1])

    def names(**wish: float) -> list[str | None]:
        return [label for label, _ in listed(MULTI.problem_type, row, TAGS, Wish(**wish))[0]]  # pyright: ignore[reportArgumentType]

    assert names() == ["love"]
    assert names(top_k=2) == ["joy", "love"]
    assert names(threshold=0.05) == ["joy", "love", "anger"]
    assert names(threshold=0.3, top_k=1) == ["joy"]
    assert names(threshold=0.99, top_k=2) == names(threshold=0.99) == []
    assert names(threshold=0.0) == ["joy", "love", "anger"]


def test_several_labels_as_text_and_in_columns() -> None:
    both, none = MULTI.answers(outputs([0.7, 0.9, 0.1], [0.2, 0.1, 0.1]), TAGS)
    assert (MULTI.in_text(both), MULTI.in_text(none)) == ('["love", "joy"]', "[]")
    assert (MULTI.columns(both), MULTI.columns(none)) == (["love 0.9000, joy 0.7000"], ["- 0.2000"])


def test_numbers_are_told_in_their_own_unit_and_order() -> None:
    (found,) = NUMBERS.answers(np.array([[-3.25, 1200.0]]), STARS)
    assert found == Prediction("stars", -3.25, {"stars": -3.25, "votes": 1200.0}, ("stars", "votes"))
    assert NUMBERS.listed(found) == [LabelScore("stars", -3.25), LabelScore("votes", 1200.0)]
    assert NUMBERS.columns(found) == ["stars -3.25", "votes 1200"]
    assert NUMBERS.in_text(found) == "stars"
    told = listed(NUMBERS.problem_type, np.array([[0.0, 1.0]]), STARS, Wish(function="sigmoid", top_k=1))
    assert told == [[("stars", 0.5)]]


def test_how_answers_change_is_told_by_task() -> None:
    before = np.array([[1.0, 0.0], [0.0, 1.0], [2.0, -1.0]])
    after = np.array([[0.0, 1.0], [0.0, 1.0], [2.0, -2.5]])
    assert SINGLE.changed(before, after, None) == "1 get another label"
    assert MULTI.changed(before, after, None) == "1 get other labels"
    assert MULTI.changed(before, after, np.array([0.1, 0.2])) == "1 get other labels"  # sigmoid(-1) is 0.27
    assert NUMBERS.changed(before, after, None) == "the numbers move by 0.5833 on average"  # 3.5 / 6


def test_before_labels_are_looked_at_the_task_is_one_label_a_row() -> None:
    assert task_of(None) == SINGLE
