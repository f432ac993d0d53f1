"""The bundled reviews: enough of them, balanced, varied, and none told twice."""

import re
from collections import Counter
from itertools import combinations

import numpy as np

from raylora.demo import NEW_SENTENCES

Reviews = list[dict[str, str]]


def words(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower())


def test_there_are_at_least_600_reviews_of_two_balanced_labels(reviews: Reviews) -> None:
    assert len(reviews) >= 600
    counts = Counter(review["label"] for review in reviews)
    assert counts.keys() == {"negative", "positive"}
    assert max(counts.values()) <= 1.05 * min(counts.values())


def test_no_two_reviews_are_near_duplicates(reviews: Reviews) -> None:
    """At most half of the words of two reviews are shared (Jaccard), and no run of six words stands in two of them."""
    sets = [frozenset(words(review["text"])) for review in reviews]
    closest = max(combinations(range(len(sets)), 2), key=lambda pair: jaccard(sets[pair[0]], sets[pair[1]]))
    assert jaccard(sets[closest[0]], sets[closest[1]]) <= 0.5, [reviews[i]["text"] for i in closest]
    runs = Counter(run for review in reviews for run in six_word_runs(review["text"]))
    assert [run for run, count in runs.items() if count > 1] == []


def test_reviews_vary_in_length(reviews: Reviews) -> None:
    lengths = np.array([len(review["text"].split()) for review in reviews])
    assert lengths.min() >= 3
    assert np.percentile(lengths, 10) <= 10
    assert np.percentile(lengths, 90) >= 35


def test_the_new_sentences_are_new(reviews: Reviews) -> None:
    assert len(NEW_SENTENCES) == 3
    assert not {*NEW_SENTENCES} & {review["text"] for review in reviews}


def jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    return len(a & b) / len(a | b)


def six_word_runs(text: str) -> set[tuple[str, ...]]:
    found = words(text)
    return {tuple(found[i : i + 6]) for i in range(len(found) - 5)}
