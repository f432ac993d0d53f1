"""The manifest `raylora.json`, which is saved beside an adapter's weights."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raylora.config import ModelSection
from raylora.config.data import Truncation
from raylora.errors import ModelError
from raylora.tasks import Learned, ProblemType

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
