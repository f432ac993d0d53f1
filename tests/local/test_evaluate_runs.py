"""An adapter is evaluated on the very rows that its run held out, and scores there what the run said."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from tiny import make_adapter, tiny_job

import raylora
from raylora.bench.rows import decided, make_splits
from raylora.cluster.evaluate.answers import Progress
from raylora.cluster.evaluate.job import Wanted, evaluate
from raylora.cluster.evaluate.output import open_output, write
from raylora.errors import ConfigError, DataError, ModelError, RayLoraError
from raylora.evaluation.record import Evaluation
from raylora.model.fit.fit import fit, manifest_of
from raylora.model.lora.save import save_adapter
from raylora.model.resolved import resolve_job

Bases = Callable[[str], Path]
Record = dict[str, Any]
WORDS = ("good", "bad", "fine", "the", "movie", "was", "with", "very", "story")


def made_up(kind: str, rows: int, seed: int = 0) -> list[Record]:
    """Texts with labels that some of their words tell, and a column."""
    random = np.random.default_rng(seed)
    texts = [random.choice(WORDS, random.integers(2, 9)).tolist() for _ in range(rows)]
    labels: dict[str, Callable[[list[str]], Any]] = {
        "single": lambda words: "good" if words.count("good") >= words.count("bad") else "bad",
        "multi": lambda words: sorted({"good", "bad", "fine"} & set(words)),
        "numbers": lambda words: 1.5 * words.count("good") - words.count("bad") + 0.25,
    }
    return [
        {"text": " ".join(words), "other": words[0], "label": labels[kind](words), "team": "ab"[i % 2]}
        for i, words in enumerate(texts)
    ]


def save(path: Path, rows: list[Record]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def trained(base: Path, folder: Path, **settings: Any) -> Path:
    """A run's adapter, trained in this process."""
    job = decided(tiny_job(base, **settings))
    resolved = resolve_job(job)
    splits = make_splits(job, resolved.base)
    fitted = fit(resolved, splits)
    save_adapter(fitted.model, resolved.base, manifest_of(resolved, splits, fitted), folder)
    return folder


@pytest.fixture(scope="module")
def run(bases: Bases, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of 120 rows of two labels, split by the run."""
    folder = tmp_path_factory.mktemp("run")
    train = save(folder / "train.jsonl", made_up("single", 120))
    return trained(bases("bert"), folder / "adapter", data__train=train)


def said(adapter: Path) -> dict[str, dict[str, float]]:
    return json.loads((adapter / "raylora.json").read_text())["metrics"]


def assert_as_the_run_said(found: Evaluation, adapter: Path, split: str) -> None:
    told = said(adapter)[split]
    assert found.data["split"] == split and found.rows == told.pop("rows")
    told.pop("dtype")
    assert found.scores == pytest.approx(told, abs=1e-5)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("single", {"data__max_samples": 90, "data__seed": 7}),
        ("single", {"data__text_pair_column": "other", "data__positive_label": "bad"}),
        ("single", {"data__truncation": "windows", "data__max_length": 6, "data__max_windows": 2}),
        ("multi", {}),
        ("numbers", {}),
    ],
)
def test_rows_that_a_run_split_off_score_what_the_run_said(
    kind: str, settings: dict[str, Any], bases: Bases, tmp_path: Path
) -> None:
    rows = made_up(kind, 100)
    train = save(tmp_path / "train.jsonl", [*rows, *rows[:7]])  # equal texts stay on one side
    adapter = trained(bases("bert"), tmp_path / "adapter", data__train=train, **settings)
    assert_as_the_run_said(raylora.evaluate(adapter), adapter, "validation")


def test_rows_that_a_review_left_out_of_the_run_are_left_out_again(bases: Bases, tmp_path: Path) -> None:
    rows = made_up("single", 80)
    review = tmp_path / "review.csv"
    review.write_text("text,label\n" + "".join(f"{row['text']},{row['label']}\n" for row in rows[:20]))
    train = save(tmp_path / "train.jsonl", rows)
    adapter = trained(bases("bert"), tmp_path / "adapter", data__train=train, data__exclude=str(review))
    assert_as_the_run_said(raylora.evaluate(adapter), adapter, "validation")


@pytest.mark.parametrize("split", ["validation", "test"])
def test_files_that_a_run_held_out_score_what_the_run_said(split: str, bases: Bases, tmp_path: Path) -> None:
    files = {
        f"data__{name}": save(tmp_path / f"{name}.jsonl", made_up("single", rows, seed))
        for seed, (name, rows) in enumerate({"train": 60, "validation": 30, "test": 40}.items())
        if name != "test" or split == "test"
    }
    adapter = trained(bases("bert"), tmp_path / "adapter", **files)
    found = raylora.evaluate(adapter)
    assert_as_the_run_said(found, adapter, split)
    assert found.data["addresses"] == [files[f"data__{split}"]]


def test_an_old_run_scores_what_it_said(old_folders: Path) -> None:
    told = json.loads((old_folders / "run" / "metrics.json").read_text())["test"]
    found = raylora.evaluate("run")
    assert found.rows == told["rows"] == 24
    assert found.scores["loss"] == pytest.approx(told["loss"], abs=1e-6)
    assert found.scores["accuracy"] == told["accuracy"]
    assert found.scores["f1_macro"] == pytest.approx(told["f1"])  # the name of its time


def test_rows_that_changed_since_the_run_are_refused(run: Path, tmp_path: Path) -> None:
    rows = made_up("single", 120)
    changed = save(tmp_path / "train.jsonl", [*rows[1:], {**rows[0], "text": "another"}])
    with pytest.raises(DataError, match=r"does not hold the rows that its run had.*Pass --data"):
        raylora.evaluate(run, settings={"data.train": changed})
    moved = save(tmp_path / "moved.jsonl", rows[::-1])
    assert raylora.evaluate(run, settings={"data.train": moved}).rows == said(run)["validation"]["rows"]


# --- other rows


def test_other_rows_are_answered_as_the_predictor_answers_them(run: Path, tmp_path: Path) -> None:
    rows = made_up("single", 30, 5)
    data = save(tmp_path / "new.jsonl", rows)
    found = evaluate(Wanted([str(run)], [data], slice_by=["team"]), say=print)
    predictions = raylora.load(run).predict([row["text"] for row in rows])
    folder = open_output(str(tmp_path / "out"))
    write(found, folder)
    table = pyarrow.parquet.read_table(tmp_path / "out" / "predictions.parquet").to_pylist()
    assert [row["predicted"] for row in table] == [each.label for each in predictions]
    assert [row["score"] for row in table] == pytest.approx([each.score for each in predictions], abs=1e-5)
    assert [(row["text"], row["label"], row["team"]) for row in table] == [
        (row["text"], row["label"], row["team"]) for row in rows
    ]
    assert table[3]["place"] == f"{data}, line 4"
    right = np.mean([row["predicted"] == row["label"] for row in table])
    record = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert record == found.record.as_dict()
    assert record["adapters"][0]["metrics"]["accuracy"]["value"] == pytest.approx(right)
    by_team = {each["value"]: each["rows"] for each in record["adapters"][0]["slices"] if each["by"] == "team"}
    assert by_team == {"a": 15, "b": 15}


def test_rows_of_a_program_are_taken_with_their_columns(run: Path) -> None:
    rows = made_up("single", 24, 6)
    columns = {name: [row[name] for row in rows] for name in ("text", "label", "team")}
    found = raylora.evaluate(run, iter(rows), slice_by=["team"])
    again = raylora.evaluate(run, columns, slice_by=["team"])
    assert found.scores == again.scores and found.rows == 24
    assert {each.value for each in again.slices if each.by == "team"} == {"a", "b"}


def test_rows_of_labels_that_the_adapter_does_not_know_are_counted_and_left_out(run: Path, tmp_path: Path) -> None:
    rows = [*made_up("single", 20, 7), {"text": "who knows", "label": "ugly"}, {"text": "so so", "label": "ugly"}]
    lines: list[str] = []
    found = raylora.evaluate(run, save(tmp_path / "new.jsonl", rows), say=lines.append)
    assert found.rows == 20 and found.data["unknown_labels"] == {"ugly": 2}
    assert "warning    rows of labels that no adapter here knows are left out: 'ugly' 2" in lines
    with pytest.raises(DataError, match="none of the 2 rows carries a label"):
        raylora.evaluate(run, save(tmp_path / "none.jsonl", rows[-2:]))


def test_robustness_counts_what_a_lower_case_tokenizer_cannot_see(run: Path, tmp_path: Path) -> None:
    data = save(tmp_path / "new.jsonl", made_up("single", 20, 8))
    found = {each.kind: each for each in raylora.evaluate(run, data, robustness=True).robustness}
    assert found["upper case"].changed == 20 and found["upper case"].moved.value == 0
    assert found["typos"].changed == 20 and found["typos"].metrics.keys() == found["whitespace"].metrics.keys()
    assert found["lower case"].changed == 0


# --- several adapters


def test_two_adapters_are_compared_whatever_the_order_of_their_labels(run: Path, bases: Bases, tmp_path: Path) -> None:
    other = make_adapter(bases("bert"), tmp_path / "other", ("good", "bad"), facts={"is_pair": False})
    data = save(tmp_path / "new.jsonl", made_up("single", 40, 9))
    found = raylora.evaluate([run, other], data)
    alone = raylora.evaluate(other, data)
    assert found.adapters[1].scores["accuracy"] == alone.scores["accuracy"]
    assert found.adapters[0].labels == found.adapters[1].labels == ("bad", "good")
    (pair,) = found.comparisons
    gap = found.adapters[1].scores["accuracy"] - found.adapters[0].scores["accuracy"]
    assert pair.differences["accuracy"].value == pytest.approx(gap)
    assert pair.mcnemar is not None and pair.mcnemar.only_second - pair.mcnemar.only_first == round(40 * gap)


def test_an_adapter_that_learned_from_other_rows_is_told(run: Path, bases: Bases, tmp_path: Path) -> None:
    other = make_adapter(bases("bert"), tmp_path / "other", ("bad", "good"), facts={"is_pair": False})
    first, second = raylora.evaluate([run, other]).adapters
    assert first.notes == () and "may have seen some of these" in second.notes[0]


# --- what cannot be


@pytest.mark.parametrize(
    ("labels", "facts", "error", "message"),
    [
        (("bad", "ugly"), {}, ConfigError, "these know different ones: 'good' only .*'ugly' only"),
        (("bad", "good"), {"problem_type": "multi_label_classification"}, ConfigError, "adapters of one task"),
        (("bad", "good"), {"is_pair": True}, DataError, "trained on pairs"),
    ],
)
def test_adapters_that_cannot_be_compared_are_named(
    labels: tuple[str, ...],
    facts: dict[str, Any],
    error: type[RayLoraError],
    message: str,
    run: Path,
    bases: Bases,
    tmp_path: Path,
) -> None:
    other = make_adapter(bases("bert"), tmp_path / "other", labels, facts=facts)
    with pytest.raises(error, match=message):
        raylora.evaluate([run, other])


def test_what_cannot_be_evaluated_is_one_clear_error(run: Path, bases: Bases, tmp_path: Path) -> None:
    def refused(error: type[RayLoraError], message: str, *args: Any, **options: Any) -> None:
        with pytest.raises(error, match=message):
            raylora.evaluate(*args, **options)

    rows = made_up("single", 6)
    good, empty = save(tmp_path / "good.jsonl", rows), save(tmp_path / "empty.jsonl", [])
    bare = save(tmp_path / "bare.jsonl", [{"text": "fine"}] * 3)
    mixed = save(tmp_path / "mixed.jsonl", [*rows, {"text": " ", "label": "good"}])
    refused(ConfigError, "named twice", [run, run])
    refused(ConfigError, "at least one adapter", [])
    refused(ModelError, "holds no adapter|is not there|not an adapter", tmp_path)
    refused(DataError, "gone.csv is not there", run, str(tmp_path / "gone.csv"))
    refused(DataError, "empty.jsonl holds no row to evaluate on", run, empty)
    refused(DataError, "'label' is missing", run, bare)
    refused(DataError, "1 of 7 rows cannot be used", run, mixed)
    refused(DataError, "no row of .*good.jsonl holds a value of 'source'", run, good, slice_by=["source"])
    refused(ConfigError, "`data.max_length` is not evaluate's to set", run, good, {"data.max_length": 8})
    refused(ConfigError, "`lora.r` is not evaluate's to set", run, good, {"lora.r": 8})
    stranger = make_adapter(bases("bert"), tmp_path / "stranger", ("bad", "good"))
    refused(ConfigError, "does not say which rows its run held out", stranger)
    skipped = raylora.evaluate(run, mixed, {"data.on_bad_row": "skip"})
    assert skipped.rows == 6 and "blank" in skipped.data["bad_rows"][0]["reason"]


def test_a_folder_of_something_else_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match=r"holds what no evaluation wrote \(thesis.tex\)"):
        open_output(str(tmp_path))
    with pytest.raises(ConfigError, match="is a file"):
        open_output(str(tmp_path / "thesis.tex"))


def test_progress_says_a_line_every_quarter_of_a_minute() -> None:
    lines: list[str] = []
    times = iter([0.0, 5.0, 20.0, 25.0, 40.0])
    progress = Progress(lines.append, 4000, clock=lambda: next(times))
    for _ in range(4):
        progress.add(1000, "a, as it is")
    assert lines == ["evaluate   a, as it is: 2,000 of 4,000 rows, 100 rows/s, 20 s left"]
