"""What is saved beside an adapter's weights: the manifest `raylora.json`, and the model card."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raylora.config import ModelSection
from raylora.config.data import Truncation
from raylora.config.yaml12 import inline
from raylora.errors import ModelError
from raylora.floor import BASELINES, WORDS
from raylora.tasks import Learned, ProblemType, task_of

if TYPE_CHECKING:
    from peft import LoraConfig


MANIFEST = "raylora.json"


@dataclass(frozen=True)
class Manifest:
    """What is saved beside the weights: all that serving needs. `labels` are in id order.

    Args:
        is_pair: whether a text is a pair; None in adapters of before December 2026 (`takes_pairs`).
        truncation, stride, max_windows: of `data`.
        calibration, thresholds, min_scores: of `settle.Settled`.
    """

    labels: tuple[str, ...]
    base_model: str
    revision: str | None
    base_digest: str
    max_length: int
    problem_type: ProblemType = "single_label_classification"
    pooling: str = "auto"
    truncation: Truncation = "end"
    stride: int = 0
    max_windows: int = 1
    metrics: dict[str, Any] = field(default_factory=dict)
    floor: dict[str, Any] = field(default_factory=dict)
    is_pair: bool | None = None
    calibration: dict[str, float] | None = None
    thresholds: dict[str, float] | None = None
    min_scores: dict[str, dict[str, float]] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)

    @property
    def learned(self) -> Learned:
        return Learned(self.labels, self.thresholds, self.min_scores)

    @property
    def takes_pairs(self) -> bool | None:
        """`is_pair`, of an old adapter by its config; None where that says nothing either."""
        data = self.config.get("data", {})
        known = self.is_pair is not None or "text_pair_column" not in data
        return self.is_pair if known else data["text_pair_column"] is not None


def base_of(manifest: Manifest, trust_remote_code: bool = False, base_model: str | None = None) -> ModelSection:
    """The base that an adapter names, or `base_model` in its place, which must have the same weights.

    Whether its code may run is the reader's to say, never the manifest's.
    """
    own = base_model in (None, manifest.base_model)
    return ModelSection(
        base_model=base_model or manifest.base_model,
        revision=manifest.revision if own else None,
        pooling=manifest.pooling,  # pyright: ignore[reportArgumentType]
        trust_remote_code=trust_remote_code,
    )


def served_base(manifest: Manifest, model: ModelSection) -> ModelSection:
    """The base of an endpoint of this adapter: the config's own where it names one, else the adapter's."""
    if model.base_model == ModelSection().base_model:
        return base_of(manifest, model.trust_remote_code)
    return model.model_copy(update={"pooling": manifest.pooling})


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a saved adapter.

    Raises:
        ModelError: the folder is not an adapter of raylora's; says what is missing.
    """
    if not folder.is_dir():
        raise ModelError(f"adapter {folder} is not there. It is the folder `adapter` inside a run's folder.")
    missing = [n for n in (MANIFEST, "adapter_config.json", "adapter_model.safetensors") if not (folder / n).is_file()]
    if missing:
        inside = " Did you mean its `adapter` folder?" if (folder / "adapter" / MANIFEST).is_file() else ""
        raise ModelError(f"{folder} is not an adapter saved by raylora: {', '.join(missing)} missing.{inside}")
    try:
        fields: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        fields["labels"] = tuple(fields["labels"])
        return Manifest(**fields)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ModelError(f"{folder / MANIFEST} is broken: {error}") from None


def _floor_rows(floor: dict[str, Any], names: Iterable[str]) -> str:
    """What baselines without an adapter reach, as more rows of the model card's table."""
    return "".join(
        f"| {split}, {WORDS[baseline]} |{_cells(scores, names)} {floor[split]['rows']} |\n"
        for split in ("validation", "test")
        if split in floor
        for baseline in BASELINES
        if (scores := floor[split][baseline])
    )


def _cells(scores: dict[str, Any], names: Iterable[str]) -> str:
    return "".join(f" {scores[name]:.4f} |" if name in scores else " |" for name in names)


def _cut_in_words(manifest: Manifest) -> str:
    """What an adapter makes of long texts, in a sentence's end and, of windows, another sentence."""
    if manifest.truncation != "windows":
        where = {"end": "", "start": ", which keep their end", "middle": ", which keep both ends"}[manifest.truncation]
        return f"texts are cut at\n{manifest.max_length} tokens{where}."
    pooling = task_of(manifest.problem_type).pool_windows
    shared = f" that share {manifest.stride} tokens" if manifest.stride else ""
    return (
        f"texts are read in\nup to {manifest.max_windows} windows of {manifest.max_length} tokens{shared}. A text's "
        f"logits are the {pooling} of its windows': without raylora, pool them so."
    )


def _python(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)


def readme(manifest: Manifest, config: "LoraConfig", settings: dict[str, Any]) -> str:
    """The model card.

    Args:
        settings: of the base's config, as they must be to load the adapter with plain PEFT.
    """
    given = manifest.config.get("data", {}).get("positive_label")
    task = task_of(manifest.problem_type).for_labels(manifest.labels, given)
    rows = "".join(
        f"| {split} |{_cells(scores, task.shown)} {scores['rows']} |\n" for split, scores in manifest.metrics.items()
    )
    id2label, count = dict(enumerate(manifest.labels)), len(manifest.labels)
    others = "".join(f", {name}={_python(value)}" for name, value in settings.items())
    floor = _floor_rows(manifest.floor, task.shown)
    columns, text = task.titles(manifest.labels), '("a text", "another")' if manifest.takes_pairs else '"a text"'
    # `all-linear` is by whole paths
    adapted = sorted({name.rpartition(".")[2] for name in config.target_modules or []})
    return f"""---
base_model: {inline(manifest.base_model)}
library_name: peft
pipeline_tag: text-classification
tags: [lora, raylora]
---
# LoRA adapter for {manifest.base_model}

{task.purpose(manifest.labels)}
Rank {config.r}, alpha {config.lora_alpha}, on {", ".join(adapted)}; {_cut_in_words(manifest)}
Trained with [raylora](https://pypi.org/project/raylora/).

| split | {" | ".join(columns)} | rows |
|---|{"---|" * len(columns)}---|
{rows}{floor}
```python
import raylora
raylora.load("adapter").predict([{text}])
```
or without raylora (where `adapter_config.json` names a folder, `base_model_name_or_path` must be there too):
```python
from peft import AutoPeftModelForSequenceClassification
id2label = {id2label}
model = AutoPeftModelForSequenceClassification.from_pretrained(
    "adapter", num_labels={count}, id2label=id2label, label2id={{v: k for k, v in id2label.items()}}{others}
)
```
"""
