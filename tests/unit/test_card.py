"""The model card: what the hub reads of it, and labels that look like Markdown."""

import html
import re
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from raylora.model.base.find import BaseFolder, licence_of
from raylora.model.lora.card import Facts, adapter_card
from raylora.model.lora.manifest import Manifest
from raylora.tasks.markdown import code, table

AWKWARD = ("a|b", "two\nlines", "`ticks`", "<img src=x onerror=alert(1)>", "---", "ünï ☃", " blank ", "back\\slash", "")
FACTS = Facts(8, 16, ("query", "value"), {}, "apache-2.0")


def manifest(labels: tuple[str, ...] = ("no", "yes"), **facts: object) -> Manifest:
    known = {
        "metrics": {"test": {"accuracy": 0.9125, "f1": 0.91, "f1_macro": 0.9, "loss": 0.3, "rows": 1234}},
        "data": {
            "files": ["/home/me/mine.csv"],
            "rows": {"train": dict.fromkeys(labels, 40), "validation": dict.fromkeys(labels, 10)},
            "fingerprint": "ab" * 32,
        },
    }
    return Manifest(labels, "org/base", None, "c" * 64, 128, **{**known, **facts})  # pyright: ignore


def read(tmp_path: Path, card: str) -> ModelCard:
    (tmp_path / "README.md").write_text(card, encoding="utf-8")
    return ModelCard.load(tmp_path / "README.md")


@pytest.mark.parametrize("label", AWKWARD)
def test_any_label_is_one_cell_of_one_line(label: str) -> None:
    cell = code(label)
    assert "\n" not in cell and "|" not in cell
    inside = (
        cell.strip("`") if cell.startswith("`") else html.unescape(cell.removeprefix("<code>").removesuffix("</code>"))
    )
    assert inside == label.replace("\n", "\\n")
    assert len(table(["label"], [[cell]]).splitlines()) == 3


def test_a_plain_label_is_plain_code() -> None:
    assert [code(label) for label in ("spam", "it's 5 %", "été")] == ["`spam`", "`it's 5 %`", "`été`"]
    assert code("x" * 300) == f"`{'x' * 200}…`"


def test_the_hub_reads_the_scores_of_a_card_whatever_the_labels(tmp_path: Path) -> None:
    data = read(tmp_path, adapter_card(manifest(AWKWARD), FACTS)).data
    assert (data.base_model, data.library_name, data.license) == ("org/base", "peft", "apache-2.0")
    assert data.tags == ["lora", "raylora"]
    found = {result.metric_type: result for result in data.eval_results or ()}
    assert found["accuracy"].metric_value == 0.9125
    assert {(r.dataset_name, r.dataset_split, r.task_type) for r in found.values()} == {
        ("mine.csv", "test", "text-classification")
    }


def test_awkward_labels_are_shown_as_they_are_each_in_a_row_of_its_own(tmp_path: Path) -> None:
    text = read(tmp_path, adapter_card(manifest(AWKWARD), FACTS)).text
    page = MarkdownIt("commonmark").enable("table").render(text)
    cells = re.findall(r"<tr>\n<td>\d+</td>\n<td><code>(.*?)</code></td>\n<td>40</td>\n<td>10</td>\n</tr>", page)
    assert [html.unescape(cell) for cell in cells] == [label.replace("\n", "\\n") for label in AWKWARD]
    assert "<img" not in page


def test_a_base_in_a_folder_is_not_told_as_the_hubs_nor_by_its_path(tmp_path: Path) -> None:
    card = read(tmp_path, adapter_card(replace(manifest(), base_model="/home/me/models/mini"), FACTS))
    assert card.data.base_model is None
    assert "`mini`" in card.text and "/home/me" not in str(card)


def test_what_the_validation_rows_taught_is_told(tmp_path: Path) -> None:
    promise = {"0.95": {"score": 0.8123, "coverage": 0.5, "rows": 50, "error": 0.04}}
    calibration = {"temperature": 1.25, "ece_before": 0.08, "ece_after": 0.02}
    card = adapter_card(
        manifest(min_scores=promise, calibration=calibration, thresholds={"no": 0.5, "yes": 0.25}), FACTS
    )
    text = read(tmp_path, card).text
    assert "| 0.95 | 0.8123 | 50.0 % | 50 |" in text
    assert "a temperature of 1.250" in text and "0.0800, after it 0.0200" in text
    assert "| 1 | `yes` | 40 | 10 | 0.2500 |" in text


def test_a_refitted_adapter_without_scores_has_no_model_index(tmp_path: Path) -> None:
    card = read(tmp_path, adapter_card(manifest(metrics={}), FACTS))
    assert card.data.eval_results is None and "None are known." in card.text


def test_a_score_that_is_below_its_floor_and_a_rare_label_are_limits(tmp_path: Path) -> None:
    scores = {"accuracy": 0.93, "f1": 0.92, "f1_macro": 0.92}
    gap = {"against": "tfidf", "value": -0.0175, "low": -0.03, "high": 0.001}
    floor = {"test": {"tfidf": scores, "probe": scores, "rows": 1000, "difference": gap}, "metric": "accuracy"}
    rows = {"train": {"no": 400, "yes": 4}}
    text = read(tmp_path, adapter_card(manifest(floor=floor, data={"rows": rows}), FACTS)).text
    assert "ends below a baseline" in text
    assert "accuracy -0.0175 against TF-IDF 0.9300  (95 % interval -0.0300 to +0.0010, 1,000 rows)" in text
    assert "fewer than 10 rows: `yes`." in text


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: mit\n---\n", "mit"),
        ("---\nlicense: [gpl-3.0, mit]\n---\n", "gpl-3.0"),
        ("---\nlanguage: en\n---\n", None),
        ("no front matter", None),
        ("---\nlicense: [\n---\n", None),
        (None, None),
    ],
)
def test_the_licence_of_a_base_is_what_its_own_card_says(card: str | None, licence: str | None, tmp_path: Path) -> None:
    if card is not None:
        (tmp_path / "README.md").write_text(card)
    assert licence_of(BaseFolder("org/base", None, str(tmp_path), "hub cache")) == licence
