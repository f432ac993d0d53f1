"""An adapter merged into its base, as a graph for ONNX Runtime: in fp32, and in int8."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from raylora.model.collator import Collator
from raylora.model.export.check import check_same, check_texts
from raylora.model.export.facts import exported_card, lora_facts
from raylora.model.export.merged import merge, save_tokenizer
from raylora.model.export.runtime import OnnxModel, quiet
from raylora.model.lora.manifest import Manifest
from raylora.model.predict import in_order, logits_of, run_batches
from raylora.model.predictor import Predictor
from raylora.model.tokens import encode, table_of

GRAPH, INT8 = "model.onnx", "model_int8.onnx"
MOST_APART = 1e-4  # of logits in fp32
LARGEST_FILE = 1_500_000_000  # protobuf ends at 2 GiB; beyond, weights lie in a file beside the graph
PRODUCTS = ("MatMul", "Gemm")
SHAPES = ((1, 1), (1, 7), (3, 12), (2, 33), (5, 64))


class _ByPlace(nn.Module):
    """Inputs by their place, as an exporter traces them; logits alone."""

    def __init__(self, model: Any, names: tuple[str, ...]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.model(**dict(zip(self.names, inputs, strict=True))).logits


def export_onnx(predictor: Predictor, folder: Path) -> tuple[nn.Module, float]:
    """Write both graphs, the config, the tokenizer and a card; compare the fp32 graph to torch.

    Returns:
        the merged model, and the largest difference between logits, in terms of the largest (`check_same`).

    Raises:
        ModelError: the graph does not answer as the adapter does.
    """
    manifest = predictor.manifest
    texts, spec = check_texts(manifest), predictor.tokenizer_spec
    own, facts = predictor.logits(texts), lora_facts(predictor.folder, predictor.base)
    collator = Collator(table_of(encode(texts, spec)), spec)
    model: Any = merge(predictor)
    traced = _inputs(collator(np.arange(2)), spec.type_ids)
    _trace(model, traced, folder / GRAPH)
    model.config.save_pretrained(str(folder))
    save_tokenizer(predictor, folder)
    card = exported_card(manifest, facts, "onnx", "Text classifier (ONNX) on", _how_to_use(manifest))
    (folder / "README.md").write_text(card, encoding="utf-8")
    graph = OnnxModel(folder / GRAPH)
    for rows, length in SHAPES:
        batch = _random(traced, rows, min(length, manifest.max_length), predictor.tokenizer_spec.pad_id)
        with torch.inference_mode():
            expected = model(**batch).logits.numpy()
        check_same(graph(**batch).logits.numpy(), expected, MOST_APART, f"the graph, of {rows} x {length} tokens,")
    found = in_order(list(run_batches(collator, len(texts), logits_of(graph, predictor.task.pool_windows))))
    _to_int8(folder / GRAPH, folder / INT8)
    return model, check_same(found, own, MOST_APART, "the graph")


def _inputs(batch: dict[str, Tensor], type_ids: bool) -> dict[str, Tensor]:
    """What the graph takes: of a base that tells the texts of a pair apart, always which one a token is of."""
    fed = {name: batch[name] for name in ("input_ids", "attention_mask")}
    return fed | (
        {"token_type_ids": batch.get("token_type_ids", torch.zeros_like(batch["input_ids"]))} if type_ids else {}
    )


def _trace(model: Any, batch: dict[str, Tensor], path: Path) -> None:
    """For any number of rows, of any length."""
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    names = tuple(batch)
    with quiet(), torch.no_grad():
        torch.onnx.export(
            _ByPlace(model, names).eval(),
            tuple(batch.values()),
            str(path),
            input_names=list(names),
            output_names=["logits"],
            dynamic_shapes=(tuple({0: "batch", 1: "length"} for _ in names),),
            dynamo=True,
            external_data=size > LARGEST_FILE,
            verbose=False,
        )


def _random(like: dict[str, Tensor], rows: int, length: int, pad_id: int) -> dict[str, Tensor]:
    """Tokens of the traced batch in another order; all rows but the first are padded by a third."""
    random = torch.Generator().manual_seed(rows * 1000 + length)
    known = like["input_ids"][like["attention_mask"] > 0]
    ids = known[torch.randint(len(known), (rows, length), generator=random)]
    mask = torch.ones_like(ids)
    mask[1:, length - length // 3 :] = 0
    batch = {"input_ids": ids.masked_fill(mask == 0, pad_id), "attention_mask": mask}
    return {name: batch.get(name, torch.zeros_like(ids)) for name in like}


def _to_int8(graph: Path, path: Path) -> None:
    """Weights of matrix products by output channel, activations by call, as `serve.int8`; the head, which is the last
    of them, and all else stay in fp32."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    products = [n.name for n in onnx.load(str(graph), load_external_data=False).graph.node if n.op_type in PRODUCTS]
    with quiet():
        quantize_dynamic(
            str(graph),
            str(path),
            op_types_to_quantize=list(PRODUCTS),
            nodes_to_exclude=[products[-1], f"{products[-1]}_MatMul"],  # it splits a Gemm into two nodes first
            per_channel=True,
            weight_type=QuantType.QInt8,
            use_external_data_format=graph.with_name(f"{graph.name}.data").exists(),
        )


def _how_to_use(manifest: Manifest) -> str:
    text = '"a text", "another"' if manifest.takes_pairs else '"a text"'
    return f"""```python
import onnxruntime
from transformers import AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained("FOLDER")
session = onnxruntime.InferenceSession("FOLDER/{GRAPH}")  # or {INT8}
fed = dict(tokenizer({text}, truncation=True, return_tensors="np"))
(logits,) = session.run(["logits"], {{each.name: fed[each.name] for each in session.get_inputs()}})
```
`config.json` names the labels (`id2label`) and holds, under `raylora`, thresholds, `min_scores` and `max_length`
({manifest.max_length}). `raylora_export.json` says what int8 costs, where it was measured.
"""
