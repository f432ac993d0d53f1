"""An adapter merged into its base: a folder that Transformers loads alone."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from raylora.model.base.load import load_tokenizer
from raylora.model.export.check import check_same, check_texts
from raylora.model.export.facts import exported_card, lora_facts, told
from raylora.model.lora.manifest import Manifest
from raylora.model.predictor import Predictor
from raylora.model.tokens import Text

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MOST_APART = 1e-4  # of logits in fp32, at any size of base; 3e-6 of MiniLM
BATCH = 8


def merge(predictor: Predictor) -> "PreTrainedModel":
    """The base with the adapter's weights added to its own, in fp32; the predictor is not to be used after."""
    model: Any = predictor.model.merge_and_unload()
    model.config.raylora = told(predictor.manifest)
    model.config.architectures = [type(model).__name__]
    return model.eval()


def save_tokenizer(predictor: Predictor, folder: Path) -> None:
    """The adapter's tokenizer, which cuts as the adapter does where it is told to cut."""
    manifest = predictor.manifest
    load_tokenizer(str(predictor.folder)).save_pretrained(str(folder))
    file = folder / "tokenizer_config.json"
    config = json.loads(file.read_text(encoding="utf-8")) | {"model_max_length": manifest.max_length}
    if manifest.truncation == "start":
        config["truncation_side"] = "left"
    file.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def export_merged(predictor: Predictor, folder: Path) -> float:
    """Write the merged model, its tokenizer and a card, load them as a user would, and compare.

    Returns:
        the largest difference between logits, in terms of the largest (`check_same`).

    Raises:
        ModelError: what was written does not answer as the adapter does.
    """
    manifest = predictor.manifest
    texts = check_texts(manifest)
    own = predictor.logits(texts)
    card = exported_card(
        manifest,
        lora_facts(predictor.folder, predictor.base),
        "transformers",
        "Text classifier on",
        how_to_use(manifest),
    )
    merge(predictor).save_pretrained(str(folder))
    save_tokenizer(predictor, folder)
    (folder / "README.md").write_text(card, encoding="utf-8")
    return check_same(_reloaded(folder, texts, predictor.base.trust_remote_code), own, MOST_APART, "the merged model")


def _reloaded(folder: Path, texts: Sequence[Text], trust_remote_code: bool) -> np.ndarray:
    """[N, C] by plain Transformers."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(
        folder, dtype=torch.float32, trust_remote_code=trust_remote_code
    ).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    parts: list[np.ndarray] = []
    for start in range(0, len(texts), BATCH):
        batch = tokenizer(list(texts[start : start + BATCH]), truncation=True, padding=True, return_tensors="pt")
        with torch.inference_mode():
            parts.append(model(**batch).logits.float().numpy())
    return np.concatenate(parts)


def how_to_use(manifest: Manifest) -> str:
    text = '{"text": "a text", "text_pair": "another"}' if manifest.takes_pairs else '"a text"'
    return f"""```python
from transformers import pipeline
pipe = pipeline("text-classification", model="FOLDER")
pipe({text}, truncation=True, top_k=None)
```
`truncation=True` cuts texts at {manifest.max_length} tokens, as in training. `config.json` holds under `raylora` what
Transformers has no key for: thresholds, `min_scores` (above them answers are right as often as promised), `max_length`.

As an endpoint, with text-embeddings-inference: `text-embeddings-router --model-id FOLDER --auto-truncate`.
"""
