"""The record of an evaluation, from outputs: against scikit-learn and scipy, and on planted rows."""

import json

import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from raylora.evaluation.alter import ALTERATIONS, altered, with_typos
from raylora.evaluation.answered import Answered
from raylora.evaluation.compare import comparisons, mcnemar, rows_of_bootstrap, rows_of_mcnemar
from raylora.evaluation.holm import holm
from raylora.evaluation.measure import measure
from raylora.evaluation.record import Evaluation, McNemar
from raylora.evaluation.robust import robustness
from raylora.evaluation.slices import slices_of
from raylora.evaluation.traits import case_of, traits
from raylora.tasks import TASKS, Learned

SINGLE, MULTI, NUMBERS = TASKS.values()
TEXTS = ["Fine.", "broken", "IT WORKS!", "Привет"]


def answered(right: np.ndarray, name: str = "a", seed: int = 0) -> Answered:
    """Rows of two labels, right where told so, at scores from 0.5 to 1."""
    random = np.random.default_rng(seed)
    targets = random.integers(0, 2, len(right))
    said = np.where(right, targets, 1 - targets)
    margins = random.uniform(0.1, 4, len(right))
    outputs = np.where(said[:, None] == [0, 1], margins[:, None], 0.0)
    return Answered(name, SINGLE, Learned(("no", "yes")), outputs, targets)


def record(right: np.ndarray) -> Evaluation:
    return measure(answered(right), [TEXTS[i % 4] for i in range(len(right))], {})


def test_a_record_holds_all_scores_each_inside_its_interval() -> None:
    right = np.random.default_rng(0).random(400) < 0.8
    found, one = record(right), answered(right)
    assert found.scores == dict(SINGLE.score(one.outputs, one.targets))
    assert all(each.low <= each.value <= each.high for name, each in found.metrics.items() if name != "ece")
    accuracy = found.metrics["accuracy"]
    error = np.sqrt(accuracy.value * (1 - accuracy.value) / 400)
    assert (accuracy.high - accuracy.low) / 2 == pytest.approx(1.96 * error, rel=0.1)


def test_a_record_is_json() -> None:
    found = record(np.random.default_rng(0).random(60) < 0.8)
    again = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert again["metrics"]["accuracy"].keys() == {"value", "low", "high"}
    assert np.sum(again["confusion"]["counts"]) == again["rows"] == 60
    assert [group["name"] for group in again["groups"]] == again["labels"] == ["no", "yes"]


def test_thresholds_and_the_positive_label_of_an_adapter_are_respected() -> None:
    outputs, targets = np.array([[0.5, -3.0], [2.0, 3.0], [-3.0, -3.0]]), np.array([[0, 0], [1, 1], [0, 0]])
    plain, learned = Learned(("a", "b")), Learned(("a", "b"), {"a": 0.7})
    metrics = [measure(Answered("x", MULTI, each, outputs, targets), TEXTS[:3], {}).scores for each in (plain, learned)]
    assert (metrics[0]["f1_micro"], metrics[1]["f1_micro"]) == (0.8, 1.0)
    right = np.array([True, True, False, True])
    one = answered(right)
    for label in ("no", "yes"):
        task = SINGLE.for_labels(("no", "yes"), label)
        found = measure(Answered("x", task, one.learned, one.outputs, one.targets), TEXTS, {})
        group = next(group for group in found.groups if group.name == label)
        assert found.scores["f1"] == pytest.approx(group.values["f1"])


def test_reliability_is_that_of_scikit_learn() -> None:
    one = answered(np.random.default_rng(0).random(500) < 0.75)
    found = measure(one, ["x"] * 500, {})
    assert found.calibration is not None
    claimed = SINGLE.scores(one.outputs).max(axis=1)
    right, mean = calibration_curve(one.merits, claimed, n_bins=15)
    assert [each.right for each in found.calibration.bins] == pytest.approx(right)
    assert [each.claimed for each in found.calibration.bins] == pytest.approx(mean)
    assert sum(each.rows for each in found.calibration.bins) == 500
    assert found.calibration.ece == pytest.approx(found.scores["ece"])


def test_fewer_answers_are_surer_and_ties_are_answered_together() -> None:
    outputs = np.array([[4.0, 0.0], [3.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    found = measure(Answered("x", SINGLE, Learned(("a", "b")), outputs, np.array([0, 0, 0, 1])), TEXTS, {})
    assert [(point.rows, point.accuracy) for point in found.coverage] == [(4, 0.75), (2, 1.0), (1, 1.0)]


def test_promises_are_told_beside_what_is_kept() -> None:
    outputs = np.array([[4.0, 0.0], [3.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    learned = Learned(("a", "b"), min_scores={"0.9": {"score": 0.9}, "0.99": {"score": 0.9999}})
    kept, none = measure(Answered("x", SINGLE, learned, outputs, np.array([0, 1, 0, 1])), TEXTS, {}).promises
    assert (kept.accuracy, kept.rows, kept.coverage, kept.right) == (0.9, 2, 0.5, 0.5)
    assert none.rows == 0 and np.isnan(none.right)


def test_numbers_have_neither_confusion_nor_calibration() -> None:
    outputs = np.arange(8.0)[:, None]
    found = measure(Answered("x", NUMBERS, Learned(("stars",)), outputs, outputs + 1), TEXTS * 2, {})
    assert (found.confusion, found.calibration, found.coverage, found.promises) == (None, None, (), ())
    assert found.scores["mae"] == 1 and found.row_metric == "mae"


# --- slices


def test_a_planted_slice_is_found_and_no_other() -> None:
    random = np.random.default_rng(0)
    team = random.choice(["a", "b", "c", "d"], 800)
    right = random.random(800) < np.where(team == "c", 0.6, 0.9)
    found = slices_of(answered(right), {"team": team.tolist(), "noise": random.integers(0, 3, 800).tolist()})
    assert [each.value for each in found if each.worse] == ["c"]
    (bad,) = (each for each in found if each.worse)
    assert bad.metric.value == bad.merit == pytest.approx(right[team == "c"].mean())
    assert bad.rest == pytest.approx(right[team != "c"].mean())
    assert bad.rows == (team == "c").sum()


@pytest.mark.parametrize("task", [SINGLE, MULTI, NUMBERS])
def test_a_planted_slice_is_found_in_every_task(task: object) -> None:
    random = np.random.default_rng(1)
    bad = random.random(400) < 0.2
    learned = Learned(("x", "y"))
    outputs = random.normal(size=(400, 2)) * 3
    noisy = outputs + random.normal(size=(400, 2)) * np.where(bad, 6, 0.5)[:, None]
    targets = {SINGLE: noisy.argmax(axis=1), MULTI: (noisy > 0).astype(float), NUMBERS: noisy}[task]  # type: ignore[index]
    found = slices_of(Answered("x", task, learned, outputs, targets), {"bad": bad.tolist()})  # type: ignore[arg-type]
    assert {each.value: each.worse for each in found} == {"True": True, "False": False}


def test_slices_of_chance_are_named_in_at_most_one_evaluation_of_twenty() -> None:
    """40 evaluations of 8 slices each that differ by chance alone: 2 false alarms are to be expected at most, and 6
    or more come once in a hundred."""
    alarms = 0
    for seed in range(40):
        random = np.random.default_rng(seed)
        columns = {name: random.integers(0, 4, 120).tolist() for name in "ab"}
        found = slices_of(answered(random.random(120) < 0.8, seed=seed), columns)
        assert len(found) == 8
        alarms += any(each.worse for each in found)
    assert alarms < 6


def test_a_slice_that_is_too_small_is_told_but_not_tested() -> None:
    right = np.r_[np.zeros(5, bool), np.ones(60, bool)]
    found = slices_of(answered(right), {"kind": ["rare"] * 5 + ["common"] * 60})
    rare = next(each for each in found if each.value == "rare")
    assert (rare.rows, rare.merit, rare.p, rare.worse) == (5, 0.0, None, False)


def test_columns_of_numbers_go_by_quarters_and_of_many_values_by_the_commonest() -> None:
    right = np.ones(120, bool)
    by_number = slices_of(answered(right), {"age": [str(i) for i in range(119)] + [None]})
    assert [(each.value, each.rows) for each in by_number] == [
        ("0 to 29", 30),
        ("30 to 59", 30),
        ("60 to 88", 29),
        ("89 to 118", 30),
        ("(none)", 1),
    ]
    by_name = slices_of(answered(right), {"user": ["big"] * 50 + [f"u{i}" for i in range(70)]})
    assert len(by_name) == 31 and by_name[0].rows == 50 and (by_name[-1].value, by_name[-1].rows) == ("(others)", 41)
    assert slices_of(answered(right), {"constant": ["x"] * 120}) == ()


def test_traits_of_texts() -> None:
    found = traits([*TEXTS, ("Ok", "123")])
    assert found["script"] == ["Latin", "Latin", "Latin", "Cyrillic", "Latin"]
    assert found["punctuation"] == ["with", "without", "with", "without", "without"]
    assert found["case"] == ["mixed", "lower", "upper", "mixed", "mixed"]
    assert found["length in characters"] == [5, 6, 9, 6, 6]
    assert case_of("123 漢字") == "none"


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == [] and holm([0.9, 0.8]) == [1.0, 1.0]


# --- comparisons


def test_mcnemar_is_exact() -> None:
    """10 rows apart, 8 to 2: twice the chance of at most 2 heads in 10 throws, (1 + 10 + 45) / 1024."""
    first = np.array([1] * 2 + [0] * 8 + [1] * 30, bool)
    second = np.array([0] * 2 + [1] * 8 + [1] * 30, bool)
    found = mcnemar(first, second)
    assert (found.only_first, found.only_second, found.p) == (2, 8, pytest.approx(2 * 56 / 1024))
    assert mcnemar(first, first).p == 1


def test_the_rows_that_would_settle_it_do() -> None:
    """Connor's example shape: 20 of 200 rows apart, 12 to 8. As many rows as told are settled 4 times in 5."""
    needed = rows_of_mcnemar(200, McNemar(8, 12, 0.5))
    assert needed == 1960  # (1.95996 sqrt(0.1) + 0.84162 sqrt(0.0996))^2 / 0.0004
    random, settled = np.random.default_rng(0), 0
    for apart in random.binomial(needed, 0.1, 200):
        only = random.binomial(apart, 0.6)
        settled += mcnemar(np.arange(apart) < only, np.arange(apart) >= only).p < 0.05
    assert 0.7 <= settled / 200 <= 0.88
    assert rows_of_mcnemar(200, McNemar(8, 8, 1.0)) is None


def test_the_rows_of_a_bootstrap_fall_with_the_square_of_the_difference() -> None:
    spread = np.random.default_rng(0).normal(size=1000) * 0.01
    near, far = (rows_of_bootstrap(100, np.r_[gap, gap + spread]) for gap in (0.01, 0.02))
    assert near == pytest.approx(100 * 2.8016**2 * spread.std() ** 2 / 1e-4, rel=0.01)
    assert near is not None and far == pytest.approx(near / 4, abs=1)
    assert rows_of_bootstrap(100, np.zeros(1001)) is None


def test_a_real_difference_is_called_real_and_chance_is_not() -> None:
    random = np.random.default_rng(0)
    right = random.random(600) < 0.75
    apart = np.r_[np.flatnonzero(right)[:7], np.flatnonzero(~right)[:5]]  # 7 rows lost, 5 won
    same, better = np.where(np.isin(np.arange(600), apart), ~right, right), right | (random.random(600) < 0.4)
    adapters = [answered(each, name) for name, each in (("one", right), ("two", same), ("three", better))]
    first, second, third = comparisons(adapters, "accuracy")
    assert [(each.first, each.second) for each in (first, second, third)] == [
        ("one", "two"),
        ("one", "three"),
        ("two", "three"),
    ]
    assert not first.real and first.rows_needed and first.rows_needed > 600
    assert "may be chance" in first.words and f"{first.rows_needed:,} rows" in first.words
    assert second.real and second.words.startswith("three is better than one by ")
    assert second.mcnemar is not None and second.mcnemar.only_first == 0
    assert second.p_adjusted >= second.p and second.test == "McNemar's exact test"
    gap = second.differences["accuracy"]
    assert gap.value == pytest.approx(better.mean() - right.mean()) and 0 < gap.low < gap.value < gap.high
    assert set(second.differences) == set(SINGLE.metrics)


def test_metrics_that_are_lower_the_better_are_compared_so() -> None:
    random = np.random.default_rng(0)
    targets = random.normal(size=(200, 1))
    near, far = (
        Answered(str(s), NUMBERS, Learned(("x",)), targets + s * random.normal(size=(200, 1)), targets)
        for s in (0.5, 2)
    )
    (found,) = comparisons([far, near], "mse")
    assert found.real and found.differences["mse"].value > 2 and found.mcnemar is None
    assert found.test == "paired bootstrap" and found.words.startswith("0.5 is better than 2 by ")


def test_adapters_that_answer_alike_are_not_told_apart_by_any_number_of_rows() -> None:
    one = answered(np.arange(50) % 5 > 0)
    (found,) = comparisons([one, one], "f1_macro")
    assert not found.real and found.rows_needed is None and "no number of them" in found.words


# --- robustness


def test_alterations_change_what_they_say_and_leave_no_text_blank() -> None:
    texts = ["Hello, world!", ("A pair.", "..."), "1"]
    assert altered(texts, "upper case") == ["HELLO, WORLD!", ("A PAIR.", "..."), "1"]
    assert altered(texts, "lower case")[0] == "hello, world!"
    assert altered(texts, "no punctuation") == ["Hello world", ("A pair", "..."), "1"]
    assert altered(["a b"], "whitespace") == ["  a  b \n"]
    assert len(ALTERATIONS) == 5


def test_typos_are_few_and_always_the_same() -> None:
    text = "the quick brown fox jumps over the lazy dog again and again, and once more"
    assert with_typos(text) == with_typos(text) != text
    assert 0 < sum(a != b for a, b in zip(text.split(), with_typos(text).split(), strict=False)) <= 6
    assert with_typos("ab") in ("ba", "b") and with_typos("a") == "a" and with_typos("aab") != "aab"


def test_flips_are_counted_over_all_rows_and_scored_anew() -> None:
    outputs, targets = np.array([[2.0, 0.0]] * 4), np.array([0, 0, 0, 1])
    one = Answered("x", SINGLE, Learned(("a", "b")), outputs, targets)

    def logits(texts: list[object], kind: str) -> np.ndarray:
        """Who shouts is answered otherwise."""
        return np.array([[0.0, 2.0] if str(text).isupper() else [2.0, 0.0] for text in texts])

    found = {each.kind: each for each in robustness(one, TEXTS, logits)}  # type: ignore[arg-type]
    upper = found["upper case"]
    assert (upper.changed, upper.moved.value, upper.metrics["accuracy"]) == (3, 0.75, 0.5)
    assert upper.moved.low < 0.75 <= upper.moved.high
    assert found["lower case"].moved.value == 0 and found["lower case"].metrics["accuracy"] == 0.75
