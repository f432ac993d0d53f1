"""Scores worked out by hand."""

import math

import numpy as np
import pytest

from raylora.metrics import score, softmax


def test_scores_of_four_rows_are_those_worked_out_by_hand() -> None:
    third = math.log(3)  # logits (ln 3, 0) are probabilities 3/4 and 1/4
    logits = np.array([[third, 0], [0, third], [third, 0], [0, third]], dtype=np.float32)
    scores = score(logits, np.array([0, 1, 1, 1]))
    assert scores.rows == 4
    assert scores.accuracy == 0.75
    # label 0: one hit, one false alarm, none missed: 2/3; label 1: two hits, one missed: 4/5
    assert scores.f1 == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert scores.loss == pytest.approx((3 * math.log(4 / 3) + math.log(4)) / 4, rel=1e-6)
    assert scores.as_dict() == {"accuracy": 0.75, "f1": scores.f1, "loss": scores.loss, "rows": 4}


def test_f1_is_the_mean_over_labels_that_occur_or_are_predicted() -> None:
    logits = np.eye(4)[[0, 0, 1]]  # label 2 and 3 are never predicted
    assert score(logits, np.array([0, 0, 1])).f1 == 1.0
    assert score(logits, np.array([0, 0, 2])).f1 == pytest.approx((1 + 0 + 0) / 3)


def test_equal_logits_cost_the_log_of_the_number_of_labels() -> None:
    assert score(np.zeros((5, 3)), np.array([0, 1, 2, 0, 1])).loss == pytest.approx(math.log(3))


def test_loss_is_the_mean_over_rows_not_over_batches() -> None:
    logits, ids = np.array([[4.0, 0.0], [0.0, 0.0], [0.0, 0.0]]), np.array([0, 0, 0])
    expected = (math.log(1 + math.exp(-4)) + 2 * math.log(2)) / 3
    assert score(logits, ids).loss == pytest.approx(expected)


def test_extreme_logits_do_not_overflow() -> None:
    logits = np.array([[3e38, -3e38], [-3e38, 3e38]], dtype=np.float32)
    right, wrong = score(logits, np.array([0, 1])), score(logits, np.array([1, 0]))
    assert (right.loss, right.accuracy) == (0.0, 1.0)
    assert wrong.loss == pytest.approx(6e38)
    assert np.array_equal(softmax(np.array([[1000.0, 0.0], [-1000.0, -1000.0]])), [[1, 0], [0.5, 0.5]])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
def test_a_logit_that_is_no_number_makes_the_loss_no_number(bad: float) -> None:
    logits = np.array([[0.0, 1.0], [bad, 1.0]])
    assert not math.isfinite(score(logits, np.array([1, 0])).loss)


def test_softmax_is_the_share_of_exponentials() -> None:
    logits = np.log(np.array([[1.0, 2.0, 5.0], [1.0, 1.0, 2.0]]))
    assert softmax(logits) == pytest.approx(np.array([[1 / 8, 2 / 8, 5 / 8], [1 / 4, 1 / 4, 2 / 4]]))
    assert softmax(logits + 7) == pytest.approx(softmax(logits))
