"""What `raylora export` writes answers as the adapter does, in the hands of those who have no raylora."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import ModelCard
from tiny import LAYOUTS, OTHERS, make_adapter, save_base
from transformers import AutoConfig, AutoTokenizer, pipeline

import raylora
from raylora.cli.main import main

Bases = Callable[[str], Path]

LABELS = ("a|b", 'two\n"lines"', "`ticks`")
TEXTS = ["Works well.", "It broke after a week and nobody answers. " * 9, "Fine"]
FACTS: dict[str, dict[str, Any]] = {
    "single": {"min_scores": {"0.9": {"score": 0.8, "coverage": 0.5, "rows": 50, "error": 0.04}}},
    "pairs": {"is_pair": True},
    "many": {"problem_type": "multi_label_classification", "thresholds": dict.fromkeys(LABELS, 0.25)},
    "numbers": {"problem_type": "regression"},
}


def logits_of_pipeline(folder: Path, texts: list[Any]) -> np.ndarray:
    pipe: Any = pipeline("text-classification", model=str(folder))
    given = [{"text": t[0], "text_pair": t[1]} if isinstance(t, tuple) else t for t in texts]
    labels = list(pipe.model.config.id2label.values())
    rows = [pipe(each, truncation=True, top_k=None, function_to_apply="none") for each in given]
    return np.array([[{each["label"]: each["score"] for each in row}[label] for label in labels] for row in rows])


@pytest.mark.parametrize("name", FACTS)
def test_pipeline_answers_as_the_adapter_does(name: str, bases: Bases, tmp_path: Path) -> None:
    adapter = make_adapter(bases("bert"), tmp_path / "run" / "adapter", LABELS, facts=FACTS[name])
    assert main(["export", str(tmp_path / "run"), "--to", "merged"]) == 0
    folder, own = tmp_path / "run" / "merged", raylora.load(adapter)
    texts: list[Any] = list(zip(TEXTS, TEXTS[::-1], strict=True)) if name == "pairs" else TEXTS
    np.testing.assert_allclose(logits_of_pipeline(folder, texts), own.logits(texts), atol=1e-5)
    config = AutoConfig.from_pretrained(folder)
    assert config.id2label == dict(enumerate(LABELS)) and config.label2id == {v: i for i, v in enumerate(LABELS)}
    assert (config.num_labels, config.problem_type) == (3, own.manifest.problem_type)
    assert config.raylora["thresholds"] == own.manifest.thresholds
    assert config.raylora["min_scores"] == own.manifest.min_scores
    assert AutoTokenizer.from_pretrained(folder).model_max_length == config.raylora["max_length"] == 64


@pytest.mark.parametrize("kind", [kind for kind in (*LAYOUTS, *OTHERS) if kind != "bert"])
def test_every_layout_merges(kind: str, bases: Bases, tmp_path: Path) -> None:
    adapter = make_adapter(bases(kind), tmp_path / "mine", LABELS)
    assert main(["export", str(adapter), "--to", "merged"]) == 0
    own = raylora.load(adapter).logits(TEXTS)
    apart = np.abs(logits_of_pipeline(tmp_path / "mine-merged", TEXTS) - own).max()
    assert apart < 1e-5 * max(1, np.abs(own).max()), "in float32's own steps: so small a GPT-2 gives logits of 6"


def test_texts_that_keep_their_end_keep_it_in_the_merged_folder(bases: Bases, tmp_path: Path) -> None:
    adapter = make_adapter(bases("bert"), tmp_path / "mine", LABELS, facts={"truncation": "start"})
    assert main(["export", str(adapter), "--to", "merged", "--output", str(tmp_path / "out")]) == 0
    texts = ["So it is. " * 100 + "Works well.", "So it is. " * 100 + "It broke."]
    found = logits_of_pipeline(tmp_path / "out", texts)
    np.testing.assert_allclose(found, raylora.load(adapter).logits(texts), atol=1e-5)
    assert np.abs(found[0] - found[1]).max() > 1e-3


def test_an_adapter_that_reads_windows_answers_in_pipeline_for_texts_of_one(bases: Bases, tmp_path: Path) -> None:
    facts = {"truncation": "windows", "max_windows": 3, "stride": 2}
    adapter = make_adapter(bases("bert"), tmp_path / "mine", LABELS, facts=facts, data__max_length=16)
    assert main(["export", str(adapter), "--to", "merged"]) == 0
    found = logits_of_pipeline(tmp_path / "mine-merged", ["Fine.", "Late"])
    np.testing.assert_allclose(found, raylora.load(adapter).logits(["Fine.", "Late"]), atol=1e-5)


def test_the_card_of_a_merged_model_is_the_hubs(bases: Bases, tmp_path: Path) -> None:
    scores = {"accuracy": 0.9, "f1": 0.9, "f1_macro": 0.9, "loss": 0.3, "rows": 100}
    adapter = make_adapter(bases("bert"), tmp_path / "mine", LABELS, facts={"metrics": {"test": scores}})
    assert main(["export", str(adapter), "--to", "merged"]) == 0
    card = ModelCard.load(tmp_path / "mine-merged" / "README.md")
    assert (card.data.library_name, card.data.pipeline_tag) == ("transformers", "text-classification")
    assert {each.metric_type for each in card.data.eval_results or ()} == {"accuracy", "f1", "f1_macro", "loss"}
    assert "&#124;" in card.text and "LoRA of rank 4" in card.text


def test_an_export_is_replaced_by_the_next_and_nothing_else_is(bases: Bases, tmp_path: Path) -> None:
    output = tmp_path / "out"
    for labels in (("a", "b"), LABELS):
        adapter = make_adapter(bases("bert"), tmp_path / "mine", labels)
        assert main(["export", str(adapter), "--to", "merged", "--output", str(output)]) == 0
    assert AutoConfig.from_pretrained(output).num_labels == 3
    assert main(["export", str(adapter), "--to", "merged", "--output", str(adapter)]) == 2
    assert raylora.load(adapter).predict(["Fine."]), "the adapter itself is no place for its export"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "out"]


def truncate(adapter: Path) -> None:
    file = adapter / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def lose_tokenizer(adapter: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (adapter / name).unlink()


def break_lora(adapter: Path) -> None:
    (adapter / "adapter_config.json").write_text("{")


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (truncate, "adapter_model.safetensors is broken"),
        (lose_tokenizer, "no tokenizer can be loaded from"),
        (break_lora, "adapter_config.json is broken"),
        (lambda adapter: (adapter / "raylora.json").unlink(), "raylora.json or"),
    ],
)
def test_a_broken_adapter_is_one_clear_error_and_leaves_the_earlier_export(
    harm: Callable[[Path], None], said: str, bases: Bases, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter = make_adapter(bases("bert"), tmp_path / "mine", LABELS)
    (tmp_path / "mine-merged").mkdir()
    (tmp_path / "mine-merged" / "raylora_export.json").write_text("earlier")
    harm(adapter)
    assert main(["export", str(adapter), "--to", "merged"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and said in error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "mine-merged"]
    assert (tmp_path / "mine-merged" / "raylora_export.json").read_text() == "earlier"


def test_an_adapter_on_another_base_is_refused(
    bases: Bases, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter = make_adapter(bases("bert"), tmp_path / "mine", LABELS)
    assert main(["export", str(adapter), "--to", "merged", "--base-model", str(bases("roberta"))]) == 2
    assert "was trained on" in capsys.readouterr().err
    assert not (tmp_path / "mine-merged").exists()


def test_a_model_that_would_answer_otherwise_is_not_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """RoBERTa counts places from its config's padding token, which is not the tokenizer's here."""
    save_base("roberta", tmp_path / "base", pad_token_id=5)
    adapter = make_adapter(tmp_path / "base", tmp_path / "mine", LABELS)
    assert main(["export", str(adapter), "--to", "merged"]) == 2
    assert "answers otherwise than the adapter" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "mine"]


def test_what_the_mark_says_is_what_was_checked(bases: Bases, tmp_path: Path) -> None:
    adapter = make_adapter(bases("bert"), tmp_path / "mine", LABELS)
    assert main(["export", str(adapter), "--to", "merged"]) == 0
    told = json.loads((tmp_path / "mine-merged" / "raylora_export.json").read_text())
    assert (told["kind"], told["labels"], told["max_length"]) == ("merged", list(LABELS), 64)
    assert 0 <= told["apart"] < 1e-5
    shutil.rmtree(adapter)
    assert logits_of_pipeline(tmp_path / "mine-merged", TEXTS).shape == (3, 3), "it needs neither adapter nor base"
