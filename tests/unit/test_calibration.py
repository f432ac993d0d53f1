"""What validation rows teach: the temperature, thresholds, the score from which answers are right, and its promise."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from raylora.tasks import TASKS
from raylora.tasks.calibration import PROMISES, best_thresholds, min_score
from raylora.tasks.functions import sigmoid, softmax
from raylora.tasks.ranking import expected_calibration_error

SINGLE, MULTI, NUMBERS = (TASKS[kind] for kind in TASKS)


def drawn(rows: int, labels: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits, and labels drawn with the very probabilities that these logits claim: one a row, and several."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(rows, labels)) * 2
    ids = (random.random((rows, 1)) < softmax(logits).cumsum(1)).argmax(1)
    return logits, ids, (random.random(logits.shape) < sigmoid(logits)).astype(np.float32)


# --- temperature


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
def test_the_temperature_undoes_what_logits_were_multiplied_by(factor: float) -> None:
    logits, ids, several = drawn(20_000, 4)
    assert SINGLE.temperature(logits * factor, ids) == pytest.approx(factor, rel=0.03)
    assert MULTI.temperature(logits * factor, several) == pytest.approx(factor, rel=0.03)


def test_logits_made_twice_too_large_are_calibrated_again_and_say_the_same() -> None:
    logits, ids, several = drawn(20_000, 4)
    for task, targets in ((SINGLE, ids), (MULTI, several)):
        too_large = logits * 2
        cooled = too_large / task.temperature(too_large, targets)
        before, after = (task.calibration_error(each, targets) for each in (too_large, cooled))
        assert before is not None and after is not None
        assert before > 0.05 and after < 0.01
        assert np.array_equal(task.decisions(cooled), task.decisions(too_large))
        assert task.score(cooled, targets).loss < task.score(too_large, targets).loss


def test_few_rows_that_are_all_right_prove_no_certainty() -> None:
    """Platt's targets: of 10 rows, 11 in 12 are held to be right."""
    logits = np.tile([9.0, 0.0], (10, 1))
    assert softmax(logits / SINGLE.temperature(logits, np.zeros(10, int)))[0, 0] == pytest.approx(11 / 12, abs=1e-3)
    several = np.full((10, 2), 9.0)
    cooled = several / MULTI.temperature(several, np.ones((10, 2), np.float32))
    assert sigmoid(cooled)[0, 0] == pytest.approx(11 / 12, abs=1e-3)


def test_scores_stay_as_they_are_where_chance_may_have_moved_them() -> None:
    """Of 100 small validation sets whose scores claim the truth, about one in twenty is told otherwise."""
    found = [drawn(80, 4, seed) for seed in range(100)]
    assert np.mean([SINGLE.temperature(logits, ids) != 1 for logits, ids, _ in found]) < 0.13
    assert np.mean([MULTI.temperature(logits, several) != 1 for logits, _, several in found]) < 0.13
    assert SINGLE.temperature(found[0][0] * 4, found[0][1]) > 2


def test_logits_of_any_size_have_a_temperature() -> None:
    logits, ids, several = drawn(50, 3)
    for size in (1e-6, 1e6):
        assert 0.05 <= SINGLE.temperature(logits * size, ids) <= 20
        assert 0.05 <= MULTI.temperature(logits * size, several) <= 20


def test_numbers_claim_no_certainty() -> None:
    numbers = np.array([[1.0], [2.0]])
    assert NUMBERS.temperature(numbers, numbers) == 1
    assert NUMBERS.calibration_error(numbers, numbers) is None
    assert NUMBERS.thresholds(numbers, numbers, "pearson") is None
    assert NUMBERS.min_scores(numbers, numbers) == {}


# --- expected calibration error


def test_the_calibration_error_is_worked_out_by_hand() -> None:
    """Two bins of 15: three rows claim 0.9, of which two are right; one claims 0.5 and is wrong."""
    confidence, right = np.array([0.9, 0.9, 0.9, 0.5]), np.array([True, True, False, False])
    assert expected_calibration_error(confidence, right) == pytest.approx((3 * abs(0.9 - 2 / 3) + 0.5) / 4)


def test_within_a_bin_too_much_and_too_little_even_out() -> None:
    assert expected_calibration_error(np.array([0.48, 0.52]), np.array([True, False])) == pytest.approx(0)


def test_certainty_that_is_right_has_no_error_and_that_is_wrong_has_all() -> None:
    assert expected_calibration_error(np.ones(3), np.array([True] * 3)) == 0
    assert expected_calibration_error(np.ones(3), np.array([False] * 3)) == 1
    assert math.isnan(expected_calibration_error(np.array([math.nan]), np.array([True])))


# --- thresholds


def test_the_threshold_is_midway_below_the_lowest_score_that_is_worth_taking() -> None:
    """20 rows: labels at 0.9 to 0.81 and none below: taking ten is the best F1, and 0.81 and 0.4 end it."""
    scores = np.r_[np.linspace(0.9, 0.81, 10), np.linspace(0.4, 0.1, 10)][:, None]
    truth = (np.arange(20) < 10)[:, None]
    assert best_thresholds(scores, truth) == pytest.approx([(0.81 + 0.4) / 2])


def test_rows_of_one_score_are_taken_together_or_not_at_all() -> None:
    scores = np.r_[np.full(12, 0.7), np.full(12, 0.3)][:, None]
    truth = np.r_[np.arange(12) < 11, np.arange(12) < 1][:, None]
    assert best_thresholds(scores, truth) == pytest.approx([0.5])


def test_all_rows_may_be_worth_taking() -> None:
    assert best_thresholds(np.full((20, 1), 0.3), np.ones((20, 1), bool)) == pytest.approx([0.15])


def test_a_label_of_few_rows_takes_the_threshold_of_all_together() -> None:
    scores = np.stack([np.r_[np.full(15, 0.8), np.full(15, 0.2)], np.r_[0.3, np.full(29, 0.1)]], axis=1)
    truth = np.stack([np.arange(30) < 15, np.arange(30) < 1], axis=1)
    first, second = best_thresholds(scores, truth)
    assert first == pytest.approx(0.5)
    assert second == pytest.approx((0.3 + 0.2) / 2)  # taking all at 0.3 or more misses none and has no false alarm


def test_labels_that_no_row_carries_are_said_from_one_half_on() -> None:
    assert best_thresholds(np.full((20, 2), 0.3), np.zeros((20, 2), bool)).tolist() == [0.5, 0.5]


def f1(truth: np.ndarray, said: np.ndarray) -> float:
    return 2 * (truth & said).sum() / (truth.sum() + said.sum())


@settings(deadline=None)
@given(
    arrays(np.float64, (40, 2), elements=st.sampled_from([0.1, 0.2, 0.5, 0.8, 0.9])),
    arrays(np.bool_, (40, 2)),
)
def test_no_other_threshold_has_a_higher_f1(scores: np.ndarray, truth: np.ndarray) -> None:
    found = best_thresholds(scores, truth)
    assert ((found > 0) & (found < 1)).all()
    for label in np.flatnonzero(truth.sum(axis=0) >= 10):
        own, *others = (
            f1(truth[:, label], scores[:, label] >= cut) for cut in (found[label], *np.arange(0.05, 1, 0.1))
        )
        assert own >= max(others)


def test_chosen_thresholds_find_more_than_one_half_where_labels_are_rare() -> None:
    random = np.random.default_rng(0)
    truth = random.random((4000, 3)) < [0.5, 0.1, 0.03]
    logits = random.normal(size=truth.shape) + truth * 2 - np.array([1, 3.2, 4.5])
    thresholds = MULTI.thresholds(logits, truth.astype(np.float32), "f1_macro")
    plain, chosen = (MULTI.score(logits, truth.astype(np.float32), each) for each in (None, thresholds))
    assert chosen.f1_macro > plain.f1_macro + 0.05
    assert SINGLE.thresholds(logits, truth[:, 0].astype(int), "accuracy") is None


def test_for_f1_over_all_labels_one_threshold_is_chosen_and_none_is_better() -> None:
    random = np.random.default_rng(1)
    scores = random.random((500, 4)) ** 2
    truth = (random.random((500, 4)) < scores).astype(np.float32)
    logits = np.log(scores / (1 - scores))
    chosen = MULTI.thresholds(logits, truth, "f1_micro")
    assert chosen is not None and len(set(chosen.tolist())) == 1
    best = MULTI.score(logits, truth, chosen)["f1_micro"]
    others = [MULTI.score(logits, truth, np.full(4, each))["f1_micro"] for each in np.linspace(0.05, 0.95, 19)]
    assert best >= max(others)


# --- the score from which answers are right


def test_the_least_score_is_worked_out_by_hand() -> None:
    """Of 19 right rows and a wrong one below, 19 make (0 + 1) / 20 = 0.05 and all 20 (1 + 1) / 21 = 0.095."""
    scores, right = np.linspace(0.99, 0.8, 20), np.arange(20) < 19
    strict, loose = min_score(scores, right, 0.95), min_score(scores, right, 0.9)
    assert strict is not None and loose is not None
    assert (strict.score, strict.rows, strict.coverage) == (scores[18], 19, 0.95)
    assert strict.error == pytest.approx(math.sqrt(0.95 * 0.05 / 19))
    assert (loose.score, loose.rows, loose.coverage) == (scores[19], 20, 1.0)
    assert min_score(scores, right, 0.99) is None, "99 right rows would be needed"


def test_rows_of_one_score_reach_it_together() -> None:
    scores, right = np.r_[np.full(30, 0.9), np.full(30, 0.6)], np.r_[np.full(30, True), np.full(30, False)]
    found = min_score(scores, right, 0.9)
    assert found is not None
    assert (found.score, found.rows) == (0.9, 30)
    assert min_score(np.full(60, 0.9), right, 0.9) is None


def test_where_no_answer_is_to_be_trusted_nothing_is_promised() -> None:
    logits, _, _ = drawn(400, 4)
    assert SINGLE.min_scores(logits * 0, np.arange(400) % 4) == {}
    assert set(SINGLE.min_scores(logits * 50, logits.argmax(1))) == {f"{promise:g}" for promise in PROMISES}


@pytest.mark.parametrize("bend", [1.0, 2.0, 0.3])
@pytest.mark.parametrize(("rows", "accuracy"), [(100, 0.9), (400, 0.9), (400, 0.95), (2000, 0.95), (2000, 0.99)])
def test_the_promise_holds_on_rows_that_nobody_saw(rows: int, accuracy: float, bend: float) -> None:
    """A score of s is right with probability s ** bend: true, too bold, too shy. Of 200 validation sets, at most 5 in
    100 promise what their own kind of rows fall short of by over two standard errors."""
    random = np.random.default_rng(rows)

    def world(count: int) -> tuple[np.ndarray, np.ndarray]:
        scores = random.uniform(0.5, 1, count)
        return scores, random.random(count) < scores**bend

    grid = np.linspace(0.5, 1, 10_001)
    truth = np.cumsum(grid[::-1] ** bend)[::-1] / np.arange(10_001, 0, -1)  # of all rows that reach a score
    broken = 0
    for _ in range(200):
        if found := min_score(*world(rows), accuracy):
            broken += bool(np.interp(found.score, grid, truth) < accuracy - 2 * found.error)
    assert broken <= 10
