"""An adapter in PEFT and Transformers without raylora, by the lines that its own card shows."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import AutoPeftModelForSequenceClassification
from tiny import make_adapter
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import raylora
from raylora.model.base.find import CARRIED, resolve
from raylora.tasks import ProblemType
from raylora.tasks.functions import FUNCTIONS

LABELS = ("a|b", 'two\n"lines"', "`ticks`")
TEXTS = ["Works well.", "It broke after a week and nobody answers."]


def lines_of(folder: Path) -> list[str]:
    """The card's blocks of Python, with the folder's own path."""
    blocks = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    return [block.replace('"adapter', f'"{folder}') for block in blocks]


@pytest.mark.parametrize("kind", ["single_label_classification", "multi_label_classification", "regression"])
def test_the_cards_lines_load_the_adapter_with_its_labels(
    kind: ProblemType, bases: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = make_adapter(bases("bert"), tmp_path / "mine", LABELS, facts={"problem_type": kind})
    own, auto, piped = lines_of(folder)
    found: dict[str, Any] = {}
    exec(own, found)
    exec(auto + piped, found)
    model = found["model"].eval()
    assert (model.config.id2label, model.config.problem_type) == (dict(enumerate(LABELS)), kind)
    tokenizer, predictor = AutoTokenizer.from_pretrained(folder), raylora.load(folder)
    with torch.inference_mode():
        plain = model(**tokenizer(TEXTS, return_tensors="pt", padding=True)).logits.numpy()
    np.testing.assert_allclose(plain, predictor.logits(TEXTS), atol=1e-5)
    scores = FUNCTIONS[predictor.task.function](plain.astype(np.float64))
    for row, listed in zip(scores, found["pipe"](TEXTS, top_k=None, truncation=True), strict=True):
        assert {each["label"]: each["score"] for each in listed} == pytest.approx(
            dict(zip(LABELS, row.tolist(), strict=True)), abs=1e-5
        )


def test_an_adapter_on_a_base_of_a_package_loads_by_the_cards_lines(tmp_path: Path) -> None:
    (name,) = CARRIED
    found = resolve(raylora.config.ModelSection(base_model=name))
    folder = make_adapter(Path(found.path), tmp_path / "mine", ("no", "yes", "maybe"))
    defined: dict[str, Any] = {}
    exec(lines_of(folder)[1], defined)
    assert defined["model"].config.id2label == {0: "no", 1: "yes", 2: "maybe"}


def test_labels_by_id_are_enough_for_peft(bases: Callable[[str], Path], tmp_path: Path) -> None:
    """The two lines of docs/export.md."""
    folder = make_adapter(bases("bert"), tmp_path / "mine", LABELS)
    page = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")
    (lines,) = re.findall(r"```python\n(import json\n.*?)```", page, re.DOTALL)
    found: dict[str, Any] = {}
    exec(lines.replace("runs/first/adapter", str(folder)), found)
    assert found["model"].config.id2label == dict(enumerate(LABELS))
    with torch.inference_mode():
        plain = found["model"].eval()(**AutoTokenizer.from_pretrained(folder)(TEXTS[0], return_tensors="pt")).logits
    np.testing.assert_allclose(plain.numpy(), raylora.load(folder).logits(TEXTS[:1]), atol=1e-5)


def test_peft_takes_no_labels_from_a_config_beside_the_adapter(bases: Callable[[str], Path], tmp_path: Path) -> None:
    """Why none is written: PEFT reads that of the base alone, and Transformers then seeks the base's weights here."""
    folder = make_adapter(bases("bert"), tmp_path / "mine", LABELS)
    before = AutoModelForSequenceClassification.from_pretrained(folder, id2label=dict(enumerate(LABELS)))
    assert before.config.id2label == dict(enumerate(LABELS))
    raylora.load(folder).model.config.save_pretrained(folder)
    with pytest.raises(RuntimeError, match="size mismatch"):
        AutoPeftModelForSequenceClassification.from_pretrained(folder)
    with pytest.raises(OSError, match=r"no file named model\.safetensors"):
        AutoModelForSequenceClassification.from_pretrained(folder)
