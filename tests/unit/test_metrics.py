"""Scores worked out by hand."""

import math

import numpy as np
import pytest
from sklearn.metrics import f1_score

from raylora.metrics import METRICS, Scores, greater_is_better
from raylora.tasks import TASKS
from raylora.tasks.functions import softmax

score = TASKS["single_label_classification"].score
SHOWN = TASKS["single_label_classification"].shown


def test_scores_of_four_rows_are_those_worked_out_by_hand() -> None:
    third = math.log(3)  # logits (ln 3, 0) are probabilities 3/4 and 1/4
    logits = np.array([[third, 0], [0, third], [third, 0], [0, third]], dtype=np.float32)
    scores = score(logits, np.array([0, 1, 1, 1]))
    assert scores.rows == 4
    assert scores.accuracy == 0.75
    # label 0: one hit, one false alarm, none missed: 2/3; label 1, the positive one: two hits, one missed: 4/5
    assert scores.f1 == pytest.approx(4 / 5)
    assert scores.f1_macro == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert scores.loss == pytest.approx((3 * math.log(4 / 3) + math.log(4)) / 4, rel=1e-6)
    values = {"accuracy": 0.75, "f1": scores.f1, "f1_macro": scores.f1_macro, "loss": scores.loss}
    assert {name: scores[name] for name in SHOWN} == values
    assert scores.as_dict() == {**scores, "rows": 4}
    assert scores.as_dict("eval_")["eval_f1"] == scores.f1
    assert Scores.of(scores.as_dict("best_"), "best_") == scores


@pytest.mark.parametrize("labels", [2, 3])
def test_f1_is_scikit_learns_of_the_positive_label_and_its_macro_mean(labels: int) -> None:
    random = np.random.default_rng(1)
    ids, logits = random.integers(0, labels, 50), random.normal(size=(50, labels))
    scores, predicted = score(logits, ids), logits.argmax(1)
    macro = f1_score(ids, predicted, average="macro")
    assert scores.f1_macro == pytest.approx(macro)
    assert scores.f1 == pytest.approx(f1_score(ids, predicted) if labels == 2 else macro)


def test_f1_is_zero_where_no_row_is_positive_and_none_is_called_so() -> None:
    scores = score(np.array([[2.0, 0.0], [1.0, 0.0]]), np.array([0, 0]))
    assert (scores.f1, scores.f1_macro) == (0.0, 1.0)


def given(accuracy: float, loss: float) -> Scores:
    return Scores({"accuracy": accuracy, "f1": 0.5, "f1_macro": 0.5, "loss": loss}, 10)


def test_every_metric_of_a_task_is_known_and_has_a_direction() -> None:
    for task in TASKS.values():
        assert set(task.metrics) <= set(METRICS)
        assert set(task.shown) | set(task.decided) <= set(task.metrics)
    assert [name for name in METRICS if not greater_is_better(name)] == ["mse", "mae", "log_loss", "ece", "loss"]


def test_between_equal_scores_the_lower_loss_is_better_by_every_metric() -> None:
    low, high = given(0.5, 0.3), given(0.5, 0.4)
    assert all(low.merit(metric) > high.merit(metric) for metric in SHOWN)
    better = given(0.6, 9.0)
    assert better.merit("accuracy") > low.merit("accuracy") and better.merit("loss") < low.merit("loss")


def test_scores_that_earlier_code_wrote_have_the_macro_f1_that_it_called_f1() -> None:
    old = {"eval_accuracy": 0.75, "eval_f1": 0.7, "eval_loss": 0.5, "eval_rows": 4, "epoch": 1.0}
    assert Scores.of(old, "eval_").f1_macro == 0.7


def test_of_more_labels_f1_is_the_mean_over_those_that_occur_or_are_predicted() -> None:
    logits = np.eye(4)[[0, 0, 1]]  # label 2 and 3 are never predicted
    assert score(logits, np.array([0, 0, 1])).f1 == 1.0
    assert score(logits, np.array([0, 0, 2])).f1 == pytest.approx((1 + 0 + 0) / 3)
    assert score(logits, np.array([0, 0, 2])).f1_macro == pytest.approx(1 / 3)


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
