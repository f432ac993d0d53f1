"""Who validates: decided by what a row says, counted by hand."""

import numpy as np
import pytest

from raylora.cluster.data.split import Division, divide, sample, text_hash
from raylora.errors import DataError


def splits(hashes: list[int], ids: list[int], fraction: float = 0.2, labels: int = 2) -> Division:
    names = ["a", "b", "c"][:labels]
    return divide(np.array(hashes, dtype=np.uint64), np.array(ids), np.array(ids), names, fraction)


def test_each_label_gives_its_share_the_lowest_hashes_first() -> None:
    hashes = [*range(100, 110), *range(50, 55)]  # ten rows of a, five of b
    parts = splits(hashes, [0] * 10 + [1] * 5)
    assert [hashes[i] for i in parts.validation] == [50, 100, 101]  # 2 of 10, 1 of 5
    assert [hashes[i] for i in parts.train] == [51, 52, 53, 54, *range(102, 110)]


@pytest.mark.parametrize(("rows", "fraction", "expected"), [(10, 0.25, 3), (10, 0.24, 2), (4, 0.1, 1), (7, 0.5, 4)])
def test_a_share_is_rounded_to_the_nearest_row_and_is_at_least_one(rows: int, fraction: float, expected: int) -> None:
    parts = splits(list(range(2 * rows)), [0] * rows + [1] * rows, fraction)
    assert len(parts.validation) == 2 * expected


def test_validation_never_takes_every_text_of_a_label() -> None:
    parts = splits([1, 2, 3, 4], [0, 0, 1, 1], fraction=0.9)
    assert sorted(parts.validation) == [0, 2]


def test_equal_texts_never_straddle_and_count_as_rows() -> None:
    hashes = [1, 1, 1, 2, 3, 4, 5, 6, 7, 8, 20, 21, 22, 23, 24]
    parts = splits(hashes, [0] * 10 + [1] * 5)
    # a's first text alone is 3 of 10 rows, more than a fifth, but one text it must be
    assert sorted(parts.validation) == [0, 1, 2, 10]


def test_equal_texts_with_conflicting_labels_stay_on_one_side() -> None:
    hashes = [5, 5, 1, 2, 3, 6, 7, 8, 9]
    parts = splits(hashes, [1, 0, 0, 0, 0, 1, 1, 1, 1], fraction=0.4)
    of_validation, of_train = {hashes[i] for i in parts.validation}, {hashes[i] for i in parts.train}
    assert not of_validation & of_train
    # 5 belongs to a, the lower label: rows 1, 2, 3, 5, 5; two of them validate. b: 6, 7, 8, 9, two of them
    assert of_validation == {1, 2, 6, 7}


def test_every_row_is_on_exactly_one_side() -> None:
    random = np.random.default_rng(0)
    hashes, ids = random.integers(0, 300, 1000), random.integers(0, 3, 1000)
    parts = splits(hashes.tolist(), ids.tolist(), labels=3)
    assert sorted([*parts.train, *parts.validation]) == list(range(1000))
    assert not set(hashes[parts.train]) & set(hashes[parts.validation])


def test_the_split_does_not_depend_on_row_order() -> None:
    random = np.random.default_rng(1)
    hashes, ids = random.integers(0, 500, 400).astype(np.uint64), random.integers(0, 2, 400)
    shuffled = random.permutation(400)
    straight, mixed = (
        divide(hashes, ids, ids, ["a", "b"], 0.3),
        divide(hashes[shuffled], ids[shuffled], ids[shuffled], ["a", "b"], 0.3),
    )
    for split in ("train", "validation"):
        one, other = getattr(straight, split), shuffled[getattr(mixed, split)]
        assert np.array_equal(hashes[one], hashes[other])
        assert np.array_equal(ids[one], ids[other])


def test_the_split_depends_on_the_seed_alone() -> None:
    texts = [f"text {i}" for i in range(100)]

    def validation(seed: int) -> set[int]:
        hashes = [text_hash(text, None, seed) for text in texts]
        return set(splits(hashes, [0, 1] * 50).validation.tolist())

    assert validation(1) == validation(1)
    assert validation(1) != validation(2)
    assert len(validation(1)) == len(validation(2)) == 20


def test_a_hash_tells_texts_pairs_and_seeds_apart() -> None:
    hashes = [
        text_hash("ab", None, 0),
        text_hash("ab", None, 2**32 - 1),
        text_hash("ab ", None, 0),
        text_hash("ab", "", 0),
        text_hash("a", "b", 0),
        text_hash("b", "a", 0),
    ]
    assert len(set(hashes)) == len(hashes)
    assert all(0 <= value < 2**64 for value in hashes)


def test_a_hash_never_changes_so_that_old_runs_split_alike() -> None:
    assert text_hash("ab", None, 42) == 0xF02FD62F686FA1EA
    assert text_hash("ab", "é", 42) == 0xB3FCDDAEA860159A


def test_a_label_of_one_text_cannot_be_split() -> None:
    with pytest.raises(DataError, match=r"label 'b' has 1 row; a split needs two different texts of each label"):
        splits([1, 2, 3, 4], [0, 0, 0, 1])
    with pytest.raises(DataError, match=r"label 'b' has 3 rows that all hold the same text"):
        splits([1, 2, 3, 7, 7, 7], [0, 0, 0, 1, 1, 1])
    with pytest.raises(DataError, match=r"label 'c' has 0 rows"):
        splits([1, 2, 3, 4], [0, 0, 1, 1], labels=3)


def test_a_sample_keeps_the_labels_shares() -> None:
    ids = np.array([0, 1, 0, 0, 1, 0, 0, 1, 0, 0])  # seven of label 0, three of label 1
    taken = sample(np.arange(10), ids, 4)  # 2.8 and 1.2: three and one
    assert taken.tolist() == [0, 1, 2, 3]
    assert np.bincount(ids[sample(np.arange(10), ids, 7)]).tolist() == [5, 2]  # 4.9 and 2.1


def test_a_sample_keeps_at_least_one_row_of_a_rare_label() -> None:
    ids = np.array([0] * 6 + [1] * 3 + [2])
    assert np.bincount(ids[sample(np.arange(10), ids, 5)]).tolist() == [3, 1, 1]  # 3, 1.5 and 0.5


def test_a_sample_is_each_labels_first_rows_in_the_given_order() -> None:
    ids = np.array([0, 0, 0, 1, 1, 1])
    order = np.array([5, 0, 4, 2, 3, 1])
    assert sample(order, ids, 4).tolist() == [5, 0, 4, 2]
    assert sample(order, ids, 2).tolist() == [5, 0]


def test_a_sample_of_more_than_all_is_all() -> None:
    order = np.array([2, 0, 1])
    assert sample(order, np.array([0, 1, 1]), 3).tolist() == [2, 0, 1]
    assert sample(order, np.array([0, 1, 1]), 99).tolist() == [2, 0, 1]
