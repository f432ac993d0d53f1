"""The graphs that `raylora export --to onnx` writes, in ONNX Runtime alone."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from huggingface_hub import ModelCard
from tiny import LAYOUTS, OTHERS, make_adapter
from transformers import AutoConfig, AutoTokenizer

import raylora
from raylora.cli.main import main
from raylora.cluster.export.rows import rows_of
from raylora.errors import DataError

Bases = Callable[[str], Path]
TEXTS = ["Works well.", "It broke after a week and nobody answers. " * 9, "Fine", "Late", "So it is, and so it was."]


@pytest.fixture(scope="module")
def exported(bases: Bases, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of an adapter whose run was on the demo reviews: `adapter`, `onnx`, and in `said` what the command said."""
    folder = tmp_path_factory.mktemp("run")
    adapter = make_adapter(bases("bert"), folder / "adapter", ("negative", "positive"))
    with pytest.MonkeyPatch.context() as patch:
        lines: list[str] = []
        patch.setattr("builtins.print", lambda line, **rest: lines.append(line))
        assert main(["export", str(adapter), "--to", "onnx"]) == 0
    (folder / "said").write_text("\n".join(lines))
    return folder


def logits_of(graph: Path, texts: list[str], **how: object) -> np.ndarray:
    """By what the export's card says."""
    tokenizer = AutoTokenizer.from_pretrained(graph.parent)
    session = onnxruntime.InferenceSession(str(graph))
    fed = dict(tokenizer(texts, truncation=True, return_tensors="np", **how))  # pyright: ignore
    return session.run(["logits"], {each.name: fed[each.name] for each in session.get_inputs()})[0]


@pytest.mark.parametrize("rows", [1, 2, 5])
@pytest.mark.parametrize("padding", [True, "max_length"])
def test_the_fp32_graph_answers_as_the_adapter_at_any_shape(rows: int, padding: bool | str, exported: Path) -> None:
    found = logits_of(exported / "onnx" / "model.onnx", TEXTS[:rows], padding=padding)
    np.testing.assert_allclose(found, raylora.load(exported / "adapter").logits(TEXTS[:rows]), atol=1e-4)


def test_all_matrix_products_but_the_heads_are_in_int8_and_close(exported: Path) -> None:
    graphs = {name: exported / "onnx" / f"{name}.onnx" for name in ("model", "model_int8")}
    assert graphs["model_int8"].stat().st_size < graphs["model"].stat().st_size
    found = Counter(node.op_type for node in onnx.load(graphs["model_int8"]).graph.node)
    assert found["MatMulInteger"] == 2 * 6 + 1, "six of each layer, and the pooler's"
    assert found["Gemm"] + found["MatMul"] == 1 + 2 * 2, "the head's, and two of each attention, which have no weights"
    exact, coarse = (logits_of(graph, TEXTS, padding=True) for graph in graphs.values())
    assert 0 < np.abs(exact - coarse).max() < 0.2 * np.abs(exact).max()


def test_what_int8_costs_on_the_runs_own_validation_rows_is_told(exported: Path) -> None:
    told = json.loads((exported / "onnx" / "raylora_export.json").read_text())
    measured, predictor = told["measured"], raylora.load(exported / "adapter")
    table, task = rows_of(predictor.manifest, predictor.tokenizer_spec, None)
    reviews = [json.loads(line) for line in raylora.demo.REVIEWS.read_text(encoding="utf-8").splitlines()]
    texts = [reviews[row]["text"] for row in table.rows]
    own = task.score(predictor.logits(texts), table.targets)["accuracy"]
    assert (measured["metric"], measured["rows"]) == ("accuracy", len(table))
    assert measured["fp32"] == pytest.approx(own, abs=1e-9)
    int8 = task.score(logits_of(exported / "onnx" / "model_int8.onnx", texts, padding=True), table.targets)["accuracy"]
    assert measured["int8"] == pytest.approx(int8, abs=0.02), "activations are scaled by batch"
    assert set(measured["rows_per_s"]) == {"torch", "onnx", "int8"} and min(measured["rows_per_s"].values()) > 0
    said = (exported / "said").read_text().splitlines()
    assert [line.split()[0] for line in said] == ["adapter", "check", "int8", "speed", "output"]
    assert f"in float32 {own:.4f}, on {len(table):,} rows" in said[2]


def test_config_and_card_lie_beside_the_graphs(exported: Path) -> None:
    config = AutoConfig.from_pretrained(exported / "onnx")
    assert config.id2label == {0: "negative", 1: "positive"} and config.raylora["max_length"] == 64
    assert ModelCard.load(exported / "onnx" / "README.md").data.library_name == "onnx"


def test_rows_to_measure_on_may_be_named(bases: Bases, tmp_path: Path) -> None:
    predictor = raylora.load(make_adapter(bases("bert"), tmp_path / "mine", ("no", "yes", "rare")))
    (tmp_path / "mine.csv").write_text("text,label\nFine.,yes\nBroken.,no\nLate.,no\n")
    table, task = rows_of(predictor.manifest, predictor.tokenizer_spec, str(tmp_path / "mine.csv"))
    assert sorted(table.targets.tolist()) == [0, 0, 1]
    assert task.problem_type == "single_label_classification"
    (tmp_path / "other.csv").write_text("text,label\nFine.,great\nBroken.,no\n")
    with pytest.raises(DataError, match=r"great.*is not one of `data.labels`"):
        rows_of(predictor.manifest, predictor.tokenizer_spec, str(tmp_path / "other.csv"))
    with pytest.raises(DataError, match="the rows carry other labels than the adapter"):
        rows_of(predictor.manifest, predictor.tokenizer_spec, None)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in (*LAYOUTS, *OTHERS) if kind != "bert"])
def test_every_layout_becomes_a_graph(kind: str, bases: Bases, tmp_path: Path) -> None:
    adapter = make_adapter(bases(kind), tmp_path / "adapter", ("a", "b", "c"))
    assert main(["export", str(adapter), "--to", "onnx"]) == 0
    found = logits_of(tmp_path / "onnx" / "model.onnx", TEXTS, padding=True)
    np.testing.assert_allclose(found, raylora.load(adapter).logits(TEXTS), atol=1e-4)
