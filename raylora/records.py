"""What a job yields, and what it says while it runs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from raylora.metrics import Scores

Say = Callable[[str], None]


@dataclass(frozen=True)
class TrainResult:
    """A finished run. `folder_uri` holds config.yaml, metrics.json, history.jsonl and `adapter/`."""

    folder_uri: str
    adapter_uri: str
    labels: tuple[str, ...]
    validation: Scores
    test: Scores | None
    best_epoch: float
    metrics: dict[str, Any]
