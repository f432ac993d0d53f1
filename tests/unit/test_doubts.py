"""Which labels are doubted: confident learning for each task, and texts beside all others."""

import numpy as np
import pytest

from raylora.neighbours import neighbours
from raylora.tasks import task_of
from raylora.tasks.doubts import by_confidence, confident_errors


def test_confident_learning_counts_as_the_paper_does() -> None:
    """Thresholds, the mean scores of each label's own rows: label 0 (0.9 + 0.2 + 0.7) / 3 = 0.6, label 1
    (0.8 + 0.4) / 2 = 0.6."""
    scores = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3], [0.2, 0.8], [0.6, 0.4]])
    ids = np.array([0, 0, 0, 1, 1])
    assert confident_errors(scores, ids).tolist() == [False, True, False, False, True]


def test_a_row_that_no_label_is_sure_of_is_no_error() -> None:
    scores = np.array([[0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [0.5, 0.5]])
    assert not confident_errors(scores, np.array([0, 0, 1, 1]))[3]


def test_a_label_without_rows_takes_none() -> None:
    scores = np.array([[0.3, 0.1, 0.6], [0.2, 0.5, 0.3]])
    assert confident_errors(scores, np.array([0, 1])).tolist() == [False, False]


def test_as_many_are_wrong_as_are_counted_those_of_the_lowest_scores() -> None:
    """Row 1 is counted; row 4 has a higher score for its own label, but no label is sure of it."""
    scores = np.array([[0.9, 0.1, 0.0], [0.1, 0.9, 0.0], [0.1, 0.9, 0.0], [0.0, 0.1, 0.9], [0.45, 0.4, 0.15]])
    ids = np.array([0, 0, 1, 2, 2])
    found = by_confidence(scores, ids)
    assert confident_errors(scores, ids).tolist() == found.is_error.tolist() == [False, True, False, False, False]
    assert found.rank.tolist() == [1, 4, 0, 2, 3]
    assert found.quality.tolist() == [0.9, 0.1, 0.9, 0.9, 0.15]


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(0)


def test_turned_labels_come_first(random: np.random.Generator) -> None:
    truth = random.integers(4, size=400)
    logits = 3 * np.eye(4)[truth] + random.normal(size=(400, 4))
    given, turned = truth.copy(), random.choice(400, 40, replace=False)
    given[turned] = (truth[turned] + 1 + random.integers(3, size=40)) % 4
    doubts = task_of("single_label_classification").doubts(logits, given)
    first = doubts.rank[:40]
    assert np.isin(first, turned).mean() > 0.85
    assert (doubts.suggested[first] == truth[first]).mean() > 0.85


def test_tags_that_were_added_or_lost_come_first(random: np.random.Generator) -> None:
    truth = (random.random((400, 5)) < 0.3).astype(np.float32)
    logits = 8 * truth - 4 + random.normal(size=truth.shape)
    given, turned = truth.copy(), random.choice(400, 40, replace=False)
    given[turned, 0] = 1 - given[turned, 0]
    doubts = task_of("multi_label_classification").doubts(logits, given)
    first = doubts.rank[:40]
    assert np.isin(first, turned).mean() > 0.9
    assert (doubts.suggested[turned] == truth[turned]).mean() > 0.9


def test_numbers_far_from_what_is_said_come_first(random: np.random.Generator) -> None:
    truth = random.normal(size=(400, 1)) * 10
    given, turned = truth.copy(), random.choice(400, 40, replace=False)
    given[turned] += 30
    doubts = task_of("regression").doubts(truth + random.normal(size=truth.shape), given)
    assert set(doubts.rank[:40]) == set(turned)
    assert doubts.is_error[turned].all()


def test_near_duplicates_of_other_labels_are_twins_and_lone_texts_are_far(random: np.random.Generator) -> None:
    features = random.normal(size=(300, 4)) * 0.1 + [10, 0, 0, 0]
    features[1] = features[0] * 2
    features[2] = [0, -10, 0, 0]
    groups = np.zeros(300, dtype=int)
    groups[1] = 1
    found = neighbours(features, groups)
    assert found.twin[1] == 0
    assert found.cosine[1] == pytest.approx(1)
    assert found.twin[2] == -1
    assert np.flatnonzero(found.is_far).tolist() == [2]


def test_two_texts_can_be_compared() -> None:
    found = neighbours(np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([0, 1]))
    assert found.twin.tolist() == [1, 0]
