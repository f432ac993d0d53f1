"""What an evaluation asks of a task: figures worked out by hand, and every resample scored once more by the task."""

import numpy as np
import pytest

from raylora.resampling import RESAMPLES, draws, interval, resampled
from raylora.tasks import TASKS, Task
from raylora.tasks.exams import exam_of

SINGLE, MULTI, NUMBERS = TASKS.values()
ROWS = 60


def outputs_and_targets(task: Task, labels: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Better than chance, with ties and rows that are wrong."""
    random = np.random.default_rng(seed)
    outputs = random.normal(size=(ROWS, labels)).round(1)
    noisy = outputs + random.normal(size=outputs.shape)
    targets = {
        SINGLE.problem_type: noisy.argmax(axis=1),
        MULTI.problem_type: (noisy > 0.5).astype(np.float32),
        NUMBERS.problem_type: (3 + noisy).astype(np.float32),
    }[task.problem_type]
    return outputs.astype(np.float32), targets


@pytest.mark.parametrize(("task", "labels"), [(SINGLE, 2), (SINGLE, 4), (MULTI, 3), (NUMBERS, 1), (NUMBERS, 2)])
def test_a_resample_scores_as_its_rows_do_one_by_one(task: Task, labels: int) -> None:
    outputs, targets = outputs_and_targets(task, labels)
    thresholds = np.linspace(0.4, 0.6, labels)
    taken = np.random.default_rng(1).multinomial(ROWS, np.full(ROWS, 1 / ROWS), 5).astype(float)
    found = exam_of(task).resampler(outputs, targets, thresholds)(taken)
    for i, counts in enumerate(taken.astype(int)):
        rows = np.repeat(np.arange(ROWS), counts)
        expected = task.score(outputs[rows], targets[rows], thresholds)
        assert found.keys() == dict(expected).keys()
        for metric in set(expected) - {"spearman"}:  # its ranks are those among all rows, which is close
            assert found[metric][i] == pytest.approx(expected[metric], abs=2e-6), metric


@pytest.mark.parametrize(("task", "labels"), [(SINGLE, 2), (SINGLE, 4), (MULTI, 3), (NUMBERS, 2)])
def test_the_first_resample_is_the_rows_themselves(task: Task, labels: int) -> None:
    outputs, targets = outputs_and_targets(task, labels)
    found = resampled(exam_of(task).resampler(outputs, targets), ROWS)
    assert {metric: pytest.approx(values[0], abs=2e-6) for metric, values in found.items()} == dict(
        task.score(outputs, targets)
    )
    assert {len(values) for values in found.values()} == {1 + RESAMPLES}


def test_a_metric_that_no_row_tells_of_is_left_out_as_in_scores() -> None:
    outputs = np.array([[1.0, 0.0], [0.0, 1.0]])
    targets = np.array([0, 0])
    found = exam_of(SINGLE).resampler(outputs, targets)(np.ones((1, 2)))
    assert "roc_auc" not in found and found.keys() == dict(SINGLE.score(outputs, targets)).keys()


def test_a_resample_without_a_label_tells_no_area() -> None:
    outputs, targets = np.array([[2.0, 0.0], [0.0, 1.0], [1.0, 0.0]]), np.array([0, 1, 0])
    found = exam_of(SINGLE).resampler(outputs, targets)(np.array([[1.0, 1, 1], [2, 0, 1]]))
    assert found["roc_auc"][0] == 1 and np.isnan(found["roc_auc"][1])
    assert interval(np.array([1.0, np.nan, 0.4, 0.6])) == pytest.approx((0.405, 0.595))


def test_draws_are_the_same_each_time_and_hold_as_many_rows_as_there_are() -> None:
    first, second = (np.concatenate(list(draws(50))) for _ in range(2))
    assert (first == second).all() and first.shape == (1 + RESAMPLES, 50)
    assert (first.sum(axis=1) == 50).all() and (first[0] == 1).all()
    assert first[1:].mean(axis=0) == pytest.approx(np.ones(50), abs=0.15)


def test_an_interval_covers_the_truth_about_19_times_in_20() -> None:
    """100 sets of 80 rows that are right 7 times in 10: a percentile interval covers 92 to 97 % of the time."""
    random, covered = np.random.default_rng(0), 0
    for _ in range(100):
        right = random.random(80) < 0.7
        outputs = np.where(right[:, None], [[1.0, 0.0]], [[0.0, 1.0]])
        low, high = interval(resampled(lambda some, o=outputs: {"accuracy": some @ (o[:, 0] > 0) / 80}, 80)["accuracy"])
        covered += low <= 0.7 <= high
    assert 0.89 <= covered / 100 <= 0.99


def test_merits_and_movement_of_each_task() -> None:
    single, multi, numbers = map(exam_of, TASKS.values())
    assert single.merits(np.array([0, 1, 1]), np.array([0, 0, 1])).tolist() == [1, 0, 1]
    held, said = np.array([[1, 1, 0], [0, 0, 0], [0, 0, 1]]), np.array([[1, 0, 0], [0, 0, 0], [1, 0, 0]])
    assert multi.merits(held, said).tolist() == [0.5, 1, 0]
    assert multi.moved(held > 0, said > 0).tolist() == [1, 0, 1]
    assert numbers.merits(np.array([[1.0, 2.0]]), np.array([[2.0, 4.0]])).tolist() == [-1.5]


def test_groups_of_labels_by_hand() -> None:
    targets, decisions = np.array([0, 0, 0, 1, 2]), np.array([0, 0, 1, 1, 0])
    a, b, c = exam_of(SINGLE).groups(targets, decisions, ["a", "b", "c"])
    assert (a.name, a.rows) == ("a", 3)
    assert a.values == pytest.approx({"precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3, "predicted": 3})
    assert b.values == pytest.approx({"precision": 0.5, "recall": 1, "f1": 2 / 3, "predicted": 2})
    assert c.values == {"precision": 0, "recall": 0, "f1": 0, "predicted": 0}
    confusion = exam_of(SINGLE).confusion(targets, decisions, ["a", "b", "c"])
    assert confusion is not None and confusion.tolist() == [[2, 1, 0], [0, 1, 0], [1, 0, 0]]


def test_groups_of_numbers_are_quarters_and_fewer_where_rows_hold_one_number() -> None:
    truth = np.arange(8.0)[:, None]
    groups = exam_of(NUMBERS).groups(truth, truth + 1, ["stars"])
    assert [(g.name, g.rows) for g in groups] == [
        ("stars 0 to 1", 2),
        ("stars 2 to 3", 2),
        ("stars 4 to 5", 2),
        ("stars 6 to 7", 2),
    ]
    assert groups[0].values == {"mae": 1, "mse": 1, "bias": 1, "mean": 0.5, "predicted_mean": 1.5}
    same = exam_of(NUMBERS).groups(np.array([[2.0]] * 6 + [[5.0]]), np.zeros((7, 1)), ["stars"])
    assert [(g.name, g.rows) for g in same] == [("stars 2 to 2", 6), ("stars 5 to 5", 1)]


def test_decisions_as_a_table_holds_them() -> None:
    single, multi, numbers = map(exam_of, TASKS.values())
    assert single.told(np.array([1, 0]), ["a", "b"]) == ["b", "a"]
    assert multi.told(np.array([[1, 1], [0, 0]]), ["a", "b"]) == [["a", "b"], []]
    assert numbers.told(np.array([[1.5]]), ["stars"]) == [1.5]
    assert numbers.told(np.array([[1.5, 2]]), ["x", "y"]) == [[1.5, 2.0]]
