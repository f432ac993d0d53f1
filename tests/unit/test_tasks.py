"""What each task makes of labels: forms, names, targets, strata; and its metrics, against scikit-learn and by hand."""

import json
import math
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sk

from raylora.errors import ConfigError, DataError
from raylora.floor import FloorSplit, difference
from raylora.metrics import Scores
from raylora.tasks import TASKS, LabelColumn, Parsed, ProblemType, Task, infer, scores_in_words, shown_metrics, task_of

SINGLE, MULTI, NUMBERS = (TASKS[kind] for kind in TASKS)
PLAIN = LabelColumn()
PIPED = LabelColumn(separator="|")


def form(task: Task, value: Any, column: LabelColumn = PLAIN) -> Any:
    """What a value is taken for; labels as Python holds them."""
    found = task.parse(value, column)
    assert found.fault is None, found.fault
    return found.form if task is SINGLE else json.loads(found.form)


def fault(task: Task, value: Any, column: LabelColumn = PLAIN) -> str:
    found = task.parse(value, column)
    assert found.fault is not None, f"{value!r} is taken for {found.form}"
    return found.fault


# --- parse


@pytest.mark.parametrize(
    ("value", "labels"),
    [
        (["joy", "anger"], ["anger", "joy"]),
        (("joy",), ["joy"]),
        (["joy", "joy", " joy "], ["joy"]),
        ([], []),
        ([3, 1.0, "2"], ["1", "2", "3"]),
        ([True], ["true"]),
        ([b"joy"], ["joy"]),
        (["a, b", "a|b", 'say "x"'], ["a, b", "a|b", 'say "x"']),
        (["é", "日本"], ["é", "日本"]),
        (7, ["7"]),
    ],
)
def test_several_labels_are_a_set_of_texts(value: Any, labels: list[str]) -> None:
    assert form(MULTI, value) == labels


@pytest.mark.parametrize(
    ("value", "labels"), [("b|a", ["a", "b"]), (" b | a |", ["a", "b"]), ("", []), ("  ", []), ("|", []), ("a", ["a"])]
)
def test_several_labels_may_stand_in_one_text(value: str, labels: list[str]) -> None:
    assert form(MULTI, value, PIPED) == labels
    assert form(MULTI, value.encode(), PIPED) == labels


def test_a_list_is_one_whether_there_is_a_separator_or_not() -> None:
    assert form(MULTI, ["a|b"], PIPED) == ["a|b"]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "is null; a row without labels holds an empty list"),
        ("joy", "must be a list of labels, found the text 'joy'. Labels in one text? Set data.label_separator"),
        ([None], "is null"),
        ([math.nan], "is null"),
        (math.nan, "is null"),
        ([""], "is blank"),
        ([["joy"]], "must be a string or an int, found list"),
        ([1.5], "must be a string or an int, found float '1.5'"),
        ({"joy": 1}, "must be a string or an int, found dict"),
        ([b"\xff"], "is not UTF-8: byte 0xff"),
    ],
)
def test_what_is_no_list_of_labels_is_told(value: Any, words: str) -> None:
    assert words in fault(MULTI, value)


def test_a_whole_decimal_is_the_label_that_an_int_is() -> None:
    """As Spark and databases write numbers."""
    assert SINGLE.parse(Decimal("3.00"), PLAIN) == SINGLE.parse(3, PLAIN) == Parsed("3")
    assert form(MULTI, [Decimal(12345678901234567890), Decimal(7)]) == ["12345678901234567890", "7"]
    assert "must be a string or an int, found float '1.5'" in fault(SINGLE, Decimal("1.5"))


def test_a_label_that_the_config_does_not_name_is_told() -> None:
    column = LabelColumn(labels=("joy", "anger"))
    assert form(MULTI, ["anger", "joy"], column) == ["anger", "joy"]
    assert fault(MULTI, ["joy", "rage"], column) == "label 'rage' is not one of `data.labels` (joy, anger)"
    assert fault(SINGLE, "rage", column) == "label 'rage' is not one of `data.labels` (joy, anger)"


@pytest.mark.parametrize(
    ("value", "numbers"),
    [
        (1, [1.0]),
        (1.5, [1.5]),
        ("1.5", [1.5]),
        (b" 2 ", [2.0]),
        ("-3e-2", [-0.03]),
        ([1, 2.5], [1.0, 2.5]),
        (("0.5", 1), [0.5, 1.0]),
        (1 << 60, [float(1 << 60)]),
        (Decimal("1.50"), [1.5]),
        ([Decimal(2), Decimal("-0.25")], [2.0, -0.25]),
    ],
)
def test_a_number_is_one_as_text_too(value: Any, numbers: list[float]) -> None:
    assert form(NUMBERS, value) == numbers


def test_numbers_may_stand_in_one_text() -> None:
    assert form(NUMBERS, "1|2.5", PIPED) == [1.0, 2.5]
    assert "must be a finite number, found ''" in fault(NUMBERS, "1|", PIPED)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "is null"),
        ([], "is an empty list"),
        ("", "must be a finite number, found ''"),
        ("good", "must be a finite number, found 'good'"),
        ("1,5", "must be a finite number, found '1,5'"),
        ("1_000", "must be a finite number, found '1_000'"),
        (True, "must be a finite number, found 'True'"),
        (math.nan, "must be a finite number, found 'nan'"),
        ("nan", "must be a finite number"),
        (math.inf, "must be a finite number, found 'inf'"),
        (Decimal("NaN"), "must be a finite number, found 'NaN'"),
        (Decimal("sNaN"), "must be a finite number, found 'sNaN'"),
        (Decimal("1e999999999"), "must be a finite number, found '1E+999999999'"),
        (Decimal("1e40"), "must be a finite number, found '1E+40'"),
        ("-Infinity", "must be a finite number"),
        (1e39, "must be a finite number, found '1e+39'"),
        (10**400, "must be a finite number"),
        ([1, None], "must be a finite number, found 'None'"),
        ([[1.0]], "must be a finite number, found '[1.0]'"),
        ({"a": 1}, "must be a finite number"),
    ],
)
def test_what_is_no_number_is_told(value: Any, words: str) -> None:
    assert words in fault(NUMBERS, value)


def test_as_many_numbers_as_the_config_names_are_wanted() -> None:
    column = LabelColumn("scores", labels=("valence", "arousal"))
    assert form(NUMBERS, [1, 2], column) == [1.0, 2.0]
    assert fault(NUMBERS, 1.5, column) == "'scores' holds 1 numbers, `data.labels` names 2"


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=8,
)


@given(anything, st.sampled_from(list(TASKS)), st.sampled_from([PLAIN, PIPED, LabelColumn(labels=("a", "b"))]))
def test_any_value_is_a_label_or_told_why_not_and_means_the_same_again(
    value: Any, kind: ProblemType, column: LabelColumn
) -> None:
    task = TASKS[kind]
    found = task.parse(value, column)
    if found.fault is not None:
        assert found == Parsed(fault=found.fault) or task is SINGLE
        return
    found.form.encode("utf-8")
    again = found.form if task is SINGLE else json.loads(found.form)
    assert task.parse(again, column) == found


# --- names


def labels_of(task: Task, values: list[Any], column: LabelColumn = PLAIN) -> tuple[str, ...]:
    forms = [task.parse(value, column).form for value in values]
    return task.labels(sorted(set(forms)), len(forms), column)


def test_labels_of_lists_are_those_of_all_rows_sorted() -> None:
    assert labels_of(MULTI, [["b", "a"], [], ["c", "a"]]) == ("a", "b", "c")
    assert labels_of(MULTI, [["10"], ["9", "1"]]) == ("1", "9", "10")
    named = LabelColumn(labels=("c", "b", "a"))
    assert labels_of(MULTI, [["b", "a"], []], named) == named.labels
    assert labels_of(MULTI, [["x"], []]) == ("x",), "one label may be there or not"


def test_numbers_are_named_by_the_column_or_the_config() -> None:
    column = LabelColumn("stars")
    assert labels_of(NUMBERS, [1, 2], column) == ("stars",)
    assert labels_of(NUMBERS, [[1, 2], [3, 4]], column) == ("stars_0", "stars_1")
    assert labels_of(NUMBERS, [[1, 2], [3, 4]], LabelColumn("stars", ("x", "y"))) == ("x", "y")


def test_what_nothing_can_be_learned_of_is_told() -> None:
    with pytest.raises(DataError, match="none of the 2 rows to train on carries a label"):
        labels_of(MULTI, [[], []])
    with pytest.raises(DataError, match=r"all 3 rows carry one number, 2\.5"):
        labels_of(NUMBERS, [2.5, "2.5", 2.50])
    with pytest.raises(DataError, match="holds 1 numbers in some rows and 2 in others"):
        labels_of(NUMBERS, [1, [1, 2]])
    for task in TASKS.values():
        with pytest.raises(DataError, match="no usable row is left"):
            task.labels([], 0, PLAIN)


def test_unknown_labels_are_named() -> None:
    assert MULTI.unknown('["a", "z", "y"]', ("a", "b")) == ["z", "y"]
    assert SINGLE.unknown("z", ("a", "b")) == ["z"]
    assert NUMBERS.unknown("[1.0, 2.0]", ("stars",)) == ["2 numbers"]
    assert [MULTI.unknown("[]", ("a",)), SINGLE.unknown("a", ("a",)), NUMBERS.unknown("[1.0]", ("stars",))] == [[]] * 3


def test_the_positive_label_must_be_one_of_two() -> None:
    assert SINGLE.for_labels(("a", "b"), None) == SINGLE
    outputs, targets = np.array([[1.0, 0], [0, 1], [1, 0]]), np.array([0, 1, 1])
    first = SINGLE.for_labels(("a", "b"), "a").score(outputs, targets)
    second = SINGLE.for_labels(("a", "b"), "b").score(outputs, targets)
    assert (first.precision, first.recall) == (0.5, 1.0)
    assert (second.precision, second.recall) == (1.0, 0.5)
    for labels, positive in ((("a", "b"), "c"), (("a", "b", "c"), "a")):
        with pytest.raises(ConfigError, match="must be one of two labels, found"):
            SINGLE.for_labels(labels, positive)


# --- targets


def test_targets_are_in_the_order_of_the_labels() -> None:
    targets = MULTI.targets(['["b"]', "[]", '["a", "b"]'], ("b", "a"))
    assert (targets.dtype, targets.tolist()) == (np.float32, [[1, 0], [0, 0], [1, 1]])
    assert SINGLE.targets(["b", "a"], ("b", "a")).tolist() == [0, 1]
    numbers = NUMBERS.targets(["[1.5, 2.0]", "[3.0, 4.0]"], ("x", "y"))
    assert (numbers.dtype, numbers.tolist()) == (np.float32, [[1.5, 2], [3, 4]])


def test_rows_are_shared_out_by_their_rarest_label() -> None:
    targets = np.zeros((10, 3), dtype=np.float32)
    targets[:8, 0] = targets[:4, 1] = targets[:1, 2] = 1
    strata = MULTI.strata(targets)
    assert strata.tolist() == [3, 2, 2, 2, 1, 1, 1, 1, 0, 0]


def test_numbers_are_shared_out_by_tenths() -> None:
    numbers = np.random.default_rng(0).permutation(np.arange(200)).astype(np.float32)[:, None]
    strata = NUMBERS.strata(numbers)
    assert np.bincount(strata).tolist() == [20] * 10
    assert (np.diff(strata[np.argsort(numbers[:, 0])]) >= 0).all()
    assert set(NUMBERS.strata(np.array([[1.0], [1.0], [2.0]], np.float32))) <= set(range(10))


def test_counts_and_words_of_a_split() -> None:
    targets = MULTI.targets(['["a"]', '["a", "b"]', "[]"], ("a", "b"))
    assert MULTI.counts(targets, ("a", "b")) == {"a": 2, "b": 1}
    assert MULTI.in_words(targets, ("a", "b")) == "1.0 a row of 2 labels: a, b"
    numbers = np.array([[1.0], [2.0], [6.0]], np.float32)
    assert NUMBERS.counts(numbers, ("stars",)) == {"stars": 3}
    assert NUMBERS.in_words(numbers, ("stars",)) == "numbers: stars 1 to 6, mean 3"


# --- infer


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["a", "b"], "single_label_classification"),
        ([0, 1, 1], "single_label_classification"),
        (["0", "1", "2.0"], "single_label_classification"),
        ([1.0, 2.0, math.nan], "single_label_classification"),
        (["a", "1.5"], "single_label_classification"),
        ([True, False], "single_label_classification"),
        (["nan", "inf"], "single_label_classification"),
        ([], "single_label_classification"),
        ([None, ""], "single_label_classification"),
        ([["a"], []], "multi_label_classification"),
        ([[1, 2], [3]], "multi_label_classification"),
        ([[True]], "multi_label_classification"),
        ([[], None], "multi_label_classification"),
        ([1.5, 2, None], "regression"),
        ([4.5, math.nan], "regression"),
        (["4.5", "3", "", " "], "regression"),
        (["1e-3", "2"], "regression"),
        ([[0.5, 1.0], [0.0, 1.0]], "regression"),
        ([[1, 2.5]], "regression"),
        ([(1.0, 2.0)], "regression"),
    ],
)
def test_the_problem_type_is_taken_from_the_values(values: list[Any], kind: str) -> None:
    assert infer(values, None) == kind


@pytest.mark.parametrize(
    "value",
    ["1_0", b"1_0", b"1.5", " 1.5 ", "nan", "-inf", True, "1e39", 1e39, 10**400, Decimal("0.5"), Decimal("NaN"), None,
     "1,5", "0x1p1", "", b"\xff", "4"],
)  # fmt: skip
def test_what_is_no_number_to_a_regression_makes_no_task_one(value: Any) -> None:
    is_number = NUMBERS.parse(value, LabelColumn()).fault is None
    missing = value in (None, "") or (isinstance(value, Decimal) and value.is_nan())
    assert infer([0.5, value], None) == ("regression" if is_number or missing else "single_label_classification")


def test_decimals_in_lists_are_numbers() -> None:
    assert infer([[Decimal("0.5"), Decimal(1)]], None) == "regression"


def test_a_separator_says_that_there_are_several_labels() -> None:
    assert infer(["a|b", "c"], "|") == "multi_label_classification"
    assert infer([[0.5, 1.0]], "|") == "regression"


# --- metrics


def random_case(task: Task, rows: int = 60, outputs: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    said = random.normal(size=(rows, outputs))
    if task is SINGLE:
        return said, np.argmax(said + random.normal(size=said.shape), axis=1)
    if task is MULTI:
        return said, (said + random.normal(size=said.shape) > 0.5).astype(np.float32)
    return said * 3 + 100, ((said + random.normal(size=said.shape)) * 3 + 100).astype(np.float32)


@pytest.mark.parametrize("labels", [2, 4])
def test_metrics_of_single_labels_are_scikit_learns(labels: int) -> None:
    said, ids = random_case(SINGLE, outputs=labels)
    scores, predicted = SINGLE.score(said, ids), said.argmax(1)
    how: Any = {"average": "binary"} if labels == 2 else {"average": "macro"}
    chances = np.exp(said) / np.exp(said).sum(1, keepdims=True)
    truth = ids[:, None] == np.arange(labels)
    columns = [1] if labels == 2 else range(labels)
    expected = {
        "accuracy": sk.accuracy_score(ids, predicted),
        "f1": sk.f1_score(ids, predicted, **how),
        "f1_macro": sk.f1_score(ids, predicted, average="macro"),
        "precision": sk.precision_score(ids, predicted, **how),
        "recall": sk.recall_score(ids, predicted, **how),
        "roc_auc": np.mean([sk.roc_auc_score(truth[:, c], chances[:, c]) for c in columns]),
        "average_precision": np.mean([sk.average_precision_score(truth[:, c], chances[:, c]) for c in columns]),
        "mcc": sk.matthews_corrcoef(ids, predicted),
        "log_loss": sk.log_loss(ids, chances),
        "loss": sk.log_loss(ids, chances),
    }
    assert {name: value for name, value in scores.items() if name != "ece"} == pytest.approx(expected)


def test_metrics_of_several_labels_are_scikit_learns() -> None:
    said, truth = random_case(MULTI)
    scores, predicted, chances = MULTI.score(said, truth), said > 0, 1 / (1 + np.exp(-said))
    losses = [sk.log_loss(truth[:, c], chances[:, c]) for c in range(3)]
    expected = {
        "f1_micro": sk.f1_score(truth, predicted, average="micro"),
        "f1_macro": sk.f1_score(truth, predicted, average="macro"),
        "roc_auc": sk.roc_auc_score(truth, chances, average="macro"),
        "average_precision": sk.average_precision_score(truth, chances, average="macro"),
        "subset_accuracy": sk.accuracy_score(truth, predicted),
        "log_loss": np.mean(losses),
        "loss": np.mean(losses),
    }
    assert dict(scores) == pytest.approx(expected)


def test_several_labels_worked_out_by_hand() -> None:
    said = np.array([[2.0, -2], [2, 2], [-2, -2], [-2, 2]])
    truth = np.array([[1.0, 0], [1, 0], [0, 0], [1, 1]], np.float32)
    scores = MULTI.score(said, truth)
    # label 0: 2 hits, 1 missed: 4/5; label 1: 1 hit, 1 false alarm: 2/3; together 3 hits, 1 + 1: 6/8
    assert scores.f1_macro == pytest.approx((4 / 5 + 2 / 3) / 2)
    assert scores.f1_micro == pytest.approx(6 / 8)
    assert scores.subset_accuracy == 2 / 4
    assert scores.loss == pytest.approx((6 * math.log(1 + math.exp(-2)) + 2 * math.log(1 + math.exp(2))) / 8)


def test_thresholds_decide_which_labels_a_row_has() -> None:
    said = np.array([[0.0, math.log(3)], [math.log(3), -math.log(3)]])  # 0.5 and 0.75; 0.75 and 0.25
    thresholds = np.array([0.6, 0.2])
    assert MULTI.decisions(said, thresholds).tolist() == [[False, True], [True, True]]
    truth = np.array([[0.0, 1], [1, 1]], np.float32)
    assert MULTI.score(said, truth, thresholds).subset_accuracy == 1
    assert MULTI.score(said, truth).subset_accuracy == 0.5


@pytest.mark.parametrize("scale", [1.0, 1e-6, 1e8])
@pytest.mark.parametrize("outputs", [1, 2])
def test_metrics_of_numbers_are_scipys_and_scikit_learns_in_any_unit(outputs: int, scale: float) -> None:
    said, truth = random_case(NUMBERS, outputs=outputs)
    said, truth = said * scale, (truth * scale).astype(np.float32)
    each = [(truth[:, c].astype(float), said[:, c]) for c in range(outputs)]
    expected = {
        "pearson": np.mean([stats.pearsonr(*pair).statistic for pair in each]),
        "spearman": np.mean([stats.spearmanr(*pair).statistic for pair in each]),
        "mse": sk.mean_squared_error(truth, said),
        "mae": sk.mean_absolute_error(truth, said),
        "r2": sk.r2_score(truth, said),
        "loss": np.mean([((a - b) ** 2).mean() / a.var() for a, b in each]),
    }
    assert dict(NUMBERS.score(said, truth)) == pytest.approx(expected, rel=1e-6)


def test_spearman_of_equal_numbers_is_scipys() -> None:
    truth = np.array([[1.0], [1], [2], [2], [3], [0]], np.float32)
    said = np.array([[1.0], [2], [2], [2], [1], [0]])
    assert NUMBERS.score(said, truth).spearman == pytest.approx(stats.spearmanr(truth[:, 0], said[:, 0]).statistic)


@pytest.mark.parametrize("value", [0.1, 1e6, 0.0])
def test_who_says_one_number_for_all_has_no_correlation_and_loses_1(value: float) -> None:
    truth = np.array([[1.0], [2], [6]], np.float32)
    scores = NUMBERS.score(np.full((3, 1), 3.0), truth)
    assert (scores.pearson, scores.spearman) == (0, 0)
    assert scores.r2 == pytest.approx(0) and scores.loss == pytest.approx(1)
    constant = NUMBERS.score(truth.astype(float), np.full((3, 1), value, np.float32))
    assert (constant.pearson, constant.spearman, constant.r2) == (0, 0, 0) and math.isfinite(constant.loss)


@pytest.mark.parametrize("kind", TASKS)
def test_a_resample_of_all_rows_is_the_score_and_of_some_is_theirs(kind: ProblemType) -> None:
    task = TASKS[kind]
    said, targets = random_case(task)
    draws = np.array([np.ones(60), np.arange(60) % 2, np.arange(60) % 3])
    for metric in task.decided:
        found = task.resampled(metric, draws, targets, task.decisions(said), 3)
        assert found[0] == pytest.approx(task.score(said, targets)[metric])
        rows = np.repeat(np.arange(60), draws[2].astype(int))  # row i is drawn i % 3 times
        own = task.score(said[rows], targets[rows])[metric]
        assert found[2] == pytest.approx(own, abs=0.05 if metric == "spearman" else 1e-9)


@pytest.mark.parametrize("kind", TASKS)
def test_who_knows_better_differs_from_a_baseline_by_more_than_chance(kind: ProblemType) -> None:
    task = TASKS[kind]
    said, targets = random_case(task, rows=300)
    right = task.decisions(said)
    wrong = np.roll(right, 1, axis=0)
    split = FloorSplit(np.arange(300), targets, {"probe": wrong}, 3, task)
    for metric in task.decided:
        gap = difference(split, right, "probe", metric)
        assert gap.low > 0, metric
        assert gap.low < gap.value < gap.high


@pytest.mark.parametrize("kind", TASKS)
def test_a_task_scores_all_its_metrics_and_shows_some(kind: ProblemType) -> None:
    task = task_of(kind)
    said, targets = random_case(task)
    scores = task.score(said, targets)
    assert tuple(scores) == task.metrics
    assert scores.rows == 60
    assert shown_metrics(scores.as_dict("eval_"), "eval_") == list(task.shown)
    assert scores_in_words(scores).startswith(f"{task.metrics[0]} {scores[task.metrics[0]]:.4f}  ")
    assert Scores.of(scores.as_dict("x_"), "x_") == scores


@pytest.mark.parametrize("kind", TASKS)
def test_decisions_have_the_shape_of_targets(kind: ProblemType) -> None:
    said, targets = random_case(TASKS[kind])
    assert TASKS[kind].decisions(said).shape == targets.shape


def test_a_label_that_no_row_or_every_row_has_takes_no_part_in_ranking() -> None:
    said, truth = random_case(MULTI)
    alone = MULTI.score(said[:, :1], truth[:, :1])
    truth[:, 1], truth[:, 2] = 0, 1
    assert MULTI.score(said, truth).roc_auc == pytest.approx(alone.roc_auc)
    assert "roc_auc" not in MULTI.score(said[:, 1:], truth[:, 1:])


# --- units


def test_standard_numbers_have_mean_0_and_deviation_1_and_go_back() -> None:
    numbers = np.random.default_rng(0).normal([5, -1000], [0.001, 300], size=(500, 2)).astype(np.float32)
    units = NUMBERS.units(numbers, 2)
    standard = NUMBERS.standard(units, numbers)
    assert standard.mean(0) == pytest.approx([0, 0], abs=1e-6) and standard.std(0) == pytest.approx([1, 1])
    assert units.of(standard) == pytest.approx(numbers, rel=1e-6)


def test_numbers_that_do_not_vary_are_not_blown_up() -> None:
    numbers = np.array([[0.1, 1], [0.1, 2], [0.1, 3]], np.float32)
    assert NUMBERS.units(numbers, 2).scale[0] == 1


def test_outputs_that_are_no_numbers_of_the_data_have_no_units() -> None:
    for task in (SINGLE, MULTI):
        said, targets = random_case(task)
        assert np.array_equal(task.units(targets, 3).of(said), said)
        assert task.standard(task.units(targets, 3), targets) is targets


@pytest.mark.parametrize("written", ["['joy', 'anger']", '["joy"]', "[ 'joy' ]"])
def test_a_list_that_was_written_as_text_is_no_label(written: str) -> None:
    """pandas writes a column of lists so to a csv."""
    for task, separator in ((SINGLE, None), (MULTI, ",")):
        assert "holds a list written as text" in str(task.parse(written, LabelColumn("tags", None, separator)).fault)
    assert SINGLE.parse("[joy]", LabelColumn("tags")).fault is None


def test_a_positive_label_is_of_one_label_a_row() -> None:
    for task in (MULTI, NUMBERS):
        with pytest.raises(ConfigError, match="is of one label a row; the task is"):
            task.for_labels(("a", "b"), "a")
