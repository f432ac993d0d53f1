"""What the driver decides from the outline of all rows: labels, splits, and what it says of them. No Ray runs."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tokenizers import Tokenizer, models

from raylora.cluster.data.dataset import Dataset, assemble
from raylora.cluster.data.rows import Source, Split
from raylora.cluster.data.split import text_hash
from raylora.cluster.data.wanted import check_wanted
from raylora.config import DataSection, Job
from raylora.errors import ConfigError, DataError
from raylora.model.tokens import TokenizerSpec
from raylora.scripts import LATIN

SPEC = TokenizerSpec(
    state=Tokenizer(models.WordLevel({"a": 0}, unk_token="a")).to_str(), pad_id=0, pad_left=False, type_ids=False
)


def dataset(
    forms: Sequence[str | None],
    heldout: list[str] | None = None,
    texts: list[str] | None = None,
    split_off: bool = False,
    **data: Any,
) -> Dataset:
    """Of rows with these labels, one file a split; no label is a bad row. Where validation is split off train, what is
    held out is test."""
    rows: list[tuple[int, str | None]] = [(0, label) for label in forms] + [(1, label) for label in heldout or []]
    texts = texts or [f"text {i}" for i in range(len(rows))]
    other: Split = "test" if split_off else "validation"
    splits: tuple[Split, Split] = ("train", other)
    sources = [Source(f"/x/{split}.csv", split, "csv") for split in splits]
    outline = pa.table(
        {
            "label": [label or "" for _, label in rows],
            "hash": pa.array([text_hash(text, None, 0) for text in texts], pa.uint64()),
            "source": pa.array([source for source, _ in rows], pa.int32()),
            "place": list(range(2, len(rows) + 2)),
            "fault": pa.array([None if label else "'label' is blank" for _, label in rows], pa.string()),
            "length": pa.array([3] * len(rows), pa.int32()),
            "tokens": pa.array([3] * len(rows), pa.int32()),
            "script": pa.array([LATIN] * len(rows), pa.int8()),
        }
    )
    section = DataSection(**({other: "v.csv"} if heldout else {}), **data)
    return assemble(section, 0, sources, SPEC, [], outline)


def test_numbers_are_sorted_as_numbers_and_equal_ones_by_how_they_are_written() -> None:
    assert dataset(["10", "9", "-1"] * 3).labels == ("-1", "9", "10")
    assert dataset(["1", "01", "2"] * 3).labels == dataset(["01", "2", "1"] * 3).labels == ("01", "1", "2")


@pytest.mark.parametrize("odd", ["--5", "5-", "9" * 5000, "²"])
def test_what_only_looks_like_a_number_is_sorted_as_text(odd: str) -> None:
    assert dataset([odd, "10", "9"] * 3).labels == tuple(sorted([odd, "10", "9"]))


def test_an_unseen_label_that_differs_by_case_is_told_so() -> None:
    with pytest.raises(DataError, match=r"never saw: 'Good' \(train has 'good'\), 'odd' \(2 rows, the first at /x/val"):
        dataset(["good", "bad"] * 3, heldout=["good", "Good", "odd"])


def test_all_labels_that_are_too_rare_are_listed_at_once() -> None:
    with pytest.raises(DataError, match=r"label 'c' has 1 row; a split needs two different texts of each label"):
        dataset(["a", "b"] * 3 + ["c"])
    with pytest.raises(
        DataError, match=r"3 labels have too few: 'c' 1 row, 'd' 2 rows that all hold.*, 'e' 1 row; a sp"
    ):
        dataset(["a", "b"] * 3 + ["c", "d", "d", "e"], texts=[*"123456", "c", "d", "d", "e"])
    with pytest.raises(DataError, match=r"30 labels have too few: .*'r19' 1 row, and 10 more; a split"):
        dataset(["a", "b"] * 30 + [f"r{i:02}" for i in range(30)])


def test_skipping_is_advised_only_where_rows_are_left() -> None:
    with pytest.raises(DataError, match=r"1 of 5 rows cannot be used.*data\.on_bad_row=skip".replace(".*", r"[\s\S]*")):
        dataset(["a", "b", None, "a", "b"])
    with pytest.raises(DataError, match=r"None of the 2 rows can be used:\n  /x/train\.csv, line 2") as told:
        dataset([None, None])
    assert "on_bad_row" not in str(told.value)


def test_the_report_is_of_whole_files_before_rows_are_sampled_and_split_off() -> None:
    found = dataset(["a", "b"] * 20, max_samples=10)
    assert sum(len(split.rows) for split in found.splits.values()) == 10
    assert found.report.splits["train"].rows == 40
    assert found.report.splits["train"].counts == {"a": 20, "b": 20}


def test_rows_that_are_skipped_are_counted_and_said() -> None:
    found = dataset(["a", "b"] * 10 + [None], on_bad_row="skip")
    assert found.report.splits["train"].bad_rows == len(found.bad_rows) == 1
    assert [warning.code for warning in found.report.warnings] == ["D001"]


def test_each_of_several_labels_is_in_both_splits_where_it_can_be() -> None:
    """`rare` is on three rows, `once` on one."""
    common = ['["a"]', '["a", "b"]', "[]", '["b"]'] * 20
    found = dataset([*common, *['["a", "rare"]'] * 3, '["once"]'], problem_type="multi_label_classification")
    assert found.labels == ("a", "b", "once", "rare")
    rows = {split: found.facts["rows"][split] for split in ("train", "validation")}
    assert rows["train"]["rare"] == 2 and rows["validation"]["rare"] == 1
    assert (rows["train"]["once"], rows["validation"]["once"]) == (1, 0)
    assert all(rows["validation"][label] >= 8 for label in ("a", "b"))
    targets = found.splits["train"].targets
    assert targets.shape == (len(found.splits["train"].rows), 4)
    assert targets.sum(axis=0).tolist() == [rows["train"][label] for label in found.labels]


def test_several_labels_keep_the_order_that_the_config_gives() -> None:
    found = dataset(['["a"]', '["b"]'] * 5, problem_type="multi_label_classification", labels=["b", "never", "a"])
    assert found.labels == ("b", "never", "a")
    assert found.facts["rows"]["train"]["never"] == 0


def test_one_of_several_labels_that_train_never_saw_is_named_with_its_place() -> None:
    forms = ['["a"]', '["b"]', "[]"]
    with pytest.raises(DataError, match=r"validation holds labels that train never saw: 'z' \(1 rows, the first at "):
        dataset(forms, ['["a", "z"]'], problem_type="multi_label_classification")


def test_numbers_of_both_splits_are_of_all_sizes() -> None:
    found = dataset([f"[{i}.0]" for i in range(100)], problem_type="regression")
    assert found.labels == ("label",)
    assert found.facts["rows"] == {"train": {"label": 80}, "validation": {"label": 20}}
    tenths = (found.splits["validation"].targets[:, 0] // 10).astype(int).tolist()
    assert sorted(set(tenths)) == list(range(10))


@pytest.mark.parametrize(
    ("problem_type", "forms", "others"),
    [
        ("regression", [f"[{i}.0]" for i in range(60)], [f"[{i}.0]" for i in range(40, 60)]),
        ("multi_label_classification", ['["a", "b"]', '["a"]', '["b", "c"]', '["b"]'] * 15, ['["a", "c"]'] * 40),
    ],
)
def test_rows_of_other_splits_and_bad_ones_have_no_say_in_what_validation_is(
    problem_type: str, forms: list[str], others: list[str]
) -> None:
    alone = dataset(forms, problem_type=problem_type)
    beside = dataset(forms, others, split_off=True, problem_type=problem_type)
    bad = dataset([*forms, *[None] * 40], problem_type=problem_type, on_bad_row="skip")
    for split in ("train", "validation"):
        assert beside.splits[split].rows.tolist() == alone.splits[split].rows.tolist()
        assert bad.splits[split].rows.tolist() == alone.splits[split].rows.tolist()


@pytest.mark.parametrize(("rows", "train"), [(3, 2), (5, 4), (9, 7), (20, 16), (49, 40), (50, 40)])
def test_few_numbers_keep_their_share_of_train(rows: int, train: int) -> None:
    found = dataset([f"[{i}.0]" for i in range(rows)], problem_type="regression")
    assert {split: len(each.rows) for split, each in found.splits.items()} == {
        "train": train,
        "validation": rows - train,
    }


@pytest.mark.parametrize(
    ("numbers", "texts", "said"),
    [
        ([1], None, r"the only row carries one number, 1: there is nothing to learn, which takes two different ones"),
        ([1, 1, 1], None, r"all 3 rows carry one number, 1: there is nothing to learn"),
        ([1, 2], None, r"all rows of train carry one number, of 2 that there are with validation's: .* Add rows"),
        (
            [1, 2, 3],
            ["a"] * 3,
            r"`data\.train` cannot be split: its 3 rows hold too few different texts to train on some",
        ),
    ],
)
def test_numbers_too_few_to_learn_from_are_told_what_must_hold(
    numbers: list[int], texts: list[str] | None, said: str
) -> None:
    with pytest.raises(DataError, match=said):
        dataset([f"[{number}.0]" for number in numbers], texts=texts, problem_type="regression")


def test_labels_of_which_none_is_left_to_validate_on_are_told_so() -> None:
    with pytest.raises(DataError, match=r"`data\.train` cannot be split: its 2 rows hold too few different texts"):
        dataset(['["a"]', '["b"]'], problem_type="multi_label_classification")


def test_other_numbers_are_another_dataset() -> None:
    forms = [f"[{i}.0]" for i in range(20)]
    first, same, other = (
        dataset(each, problem_type="regression") for each in (forms, forms[:], [*forms[:-1], "[19.5]"])
    )
    assert first.facts == same.facts
    assert first.facts["rows"] == other.facts["rows"] and first.facts["fingerprint"] != other.facts["fingerprint"]


def test_rows_with_another_count_of_numbers_are_told() -> None:
    with pytest.raises(DataError, match="holds 1 numbers in some rows and 2 in others"):
        dataset(["[1.0]", "[1.0, 2.0]"] * 4, problem_type="regression")


def test_the_positive_label_is_found_by_its_name() -> None:
    for positive in ("yes", "no"):
        for labels in (["yes", "no"], None):
            found = dataset(["yes", "no"] * 5, positive_label=positive, labels=labels)
            assert found.task.titles(found.labels)[1] == f"F1 (`{positive}`)"


# --- what a job wants of the rows


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"train.metric_for_best_model": "roc_auc"}, r"`roc_auc` cannot choose an epoch: of the 3 validation rows"),
        ({"train.metric_for_best_model": "average_precision"}, r"another metric \(accuracy, f1, .*log_loss"),
        ({"train.class_weights": {"goood": 2.0}}, r"names 'goood', which is not a label of the data: bad, good"),
    ],
)
def test_what_the_rows_cannot_give_is_told_before_a_worker_starts(wanted: dict[str, Any], words: str) -> None:
    one_label = dataset(["good", "bad"] * 3, heldout=["good"] * 3)
    jobs = [Job().replace({"data.problem_type": "single_label_classification"} | each) for each in ({}, wanted)]
    with pytest.raises(ConfigError, match=words):
        check_wanted(jobs, one_label)


@pytest.mark.parametrize("heldout", [["[2.0]"], ["[2.0]", "[2.0]"]])
def test_numbers_that_do_not_differ_cannot_be_ranked(heldout: list[str]) -> None:
    rows = dataset(["[1.0]", "[2.0]"] * 3, heldout=heldout, problem_type="regression")
    job = Job().replace({"data.problem_type": "regression"})
    for metric in (None, "spearman", "r2"):
        with pytest.raises(
            ConfigError, match=r"cannot choose an epoch: of the validation rows .* one number\. Add rows"
        ):
            check_wanted([job.replace({"train.metric_for_best_model": metric})], rows)
    check_wanted([job.replace({"train.metric_for_best_model": "mae"})], rows)


@pytest.mark.parametrize("metric", ["roc_auc", "ece", "loss", "accuracy"])
def test_rows_of_both_labels_give_each_metric(metric: str) -> None:
    wanted = {"train.metric_for_best_model": metric, "train.class_weights": {"bad": 2.0}}
    job = Job().replace({"data.problem_type": "single_label_classification"} | wanted)
    check_wanted([job], dataset(["good", "bad"] * 3, heldout=["good", "bad"]))


def test_several_labels_that_all_rows_carry_cannot_be_ranked() -> None:
    job = Job().replace({"data.problem_type": "multi_label_classification", "train.metric_for_best_model": "roc_auc"})
    rows = dataset(['["a"]', '["b"]'] * 3, heldout=['["a"]', '["a"]'], problem_type="multi_label_classification")
    with pytest.raises(ConfigError, match="each label is carried by all of them or by none"):
        check_wanted([job], rows)


# ---- data.exclude


def excluding(path: Path, lines: str, forms: list[str | None], **data: Any) -> Dataset:
    path.write_text(lines, encoding="utf-8")
    return dataset(forms, exclude=str(path), **data)


def test_rows_that_a_review_names_are_left_out_by_text_and_label(tmp_path: Path) -> None:
    """A label that differs keeps the row; what stands nowhere is told."""
    forms = ["good", "bad"] * 5
    review = "reason,label,text\nlabel,good,text 0\nlabel,good,text 1\nlabel,bad,text 3\nlabel,good,text 99\n"
    found = excluding(tmp_path / "review.csv", review, forms)
    rows = np.concatenate([found.splits["train"].rows, found.splits["validation"].rows])
    assert sorted(rows) == [1, 2, 4, 5, 6, 7, 8, 9]
    assert found.left_out is not None
    assert re.search(r"2 rows that .*review\.csv names are left out; 1 of its texts stand in no file", found.left_out)


def test_a_review_out_of_a_spreadsheet_is_read(tmp_path: Path) -> None:
    """Semicolons, a byte order mark, columns moved."""
    found = excluding(tmp_path / "r.csv", "\ufefftext;label;mine\ntext 0;1;x\n", ["1", "0"] * 5)
    assert 0 not in [*found.splits["train"].rows, *found.splits["validation"].rows]


def test_several_labels_and_numbers_are_known_as_a_review_writes_them(tmp_path: Path) -> None:
    several = ['["a", "b"]', '["c"]', "[]", '["b"]'] * 3
    review = "label,text\na | b,text 0\n-,text 2\n"
    found = excluding(tmp_path / "r.csv", review, several, problem_type="multi_label_classification")
    assert not {0, 2} & {*found.splits["train"].rows, *found.splits["validation"].rows}
    numbers: list[str | None] = [f"[{i / 8}]" for i in range(12)]
    found = excluding(tmp_path / "r.csv", "label,text\n0.125,text 1\n", numbers, problem_type="regression")
    assert 1 not in [*found.splits["train"].rows, *found.splits["validation"].rows]


def test_a_review_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no column 'label'"):
        excluding(tmp_path / "r.csv", "text\nx\n", ["a", "b"] * 3)
    with pytest.raises(DataError, match=r"`data\.exclude`: .*r\.csv, line 2: 'text' is blank"):
        excluding(tmp_path / "r.csv", "text,label\n,a\n", ["a", "b"] * 3)
    with pytest.raises(DataError, match=r"`data\.exclude`: .*nowhere\.csv cannot be opened"):
        dataset(["a", "b"] * 3, exclude=str(tmp_path / "nowhere.csv"))
