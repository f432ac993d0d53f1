"""Which numbers and settings of a job its trackers show, under which names. Loads no tracker."""

import math
from collections.abc import Mapping
from typing import Any

from raylora.cluster.events.history import Event
from raylora.config import Job, keys
from raylora.config.file import value_of
from raylora.metrics import METRICS

LOSS = ("loss", "learning_rate", "grad_norm", "rows_per_s", "epoch")
ELSEWHERE = ("serve.", "run_name", "storage_path", "train.report_to")


def params_of(job: Job, is_sweep: bool) -> dict[str, Any]:
    """The settings by dotted key, without those that are another command's."""
    others = ELSEWHERE if is_sweep else (*ELSEWHERE, "tune.")
    return {key: value_of(job, key) for key in keys() if not key.startswith(others)}


def values_of(event: Event) -> dict[str, float]:
    """Numbers of an event as trackers name them; none where it tells of no moment of the training."""
    if event["kind"] == "loss":
        return _numbers({f"train/{key}": event.get(key) for key in LOSS})
    if event["kind"] in ("evaluation", "trial"):
        scores = {f"eval/{name}": event.get(f"eval_{name}") for name in METRICS}
        return _numbers({**scores, "eval/best": event.get("score"), "train/epoch": event["epoch"]})
    if event["kind"] == "floor":
        split = event["validation"]
        baselines = {name: scores for name, scores in split.items() if isinstance(scores, Mapping)}
        baselines.pop("difference", None)
        return _numbers({f"floor/{name}_{m}": scores.get(m) for name, scores in baselines.items() for m in METRICS})
    return {}


def step_of(event: Event) -> int:
    """A trial's epochs, where it tells no steps."""
    return event["step"] if "step" in event else round(event.get("epoch", 0))


def final_values(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Scores of a finished job by split, of what metrics.json holds."""
    splits = {split: metrics[split] for split in ("validation", "test") if metrics[split]}
    return _numbers({f"{split}/{m}": scores.get(m) for split, scores in splits.items() for m in METRICS})


def _numbers(found: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in found.items() if value is not None and math.isfinite(value)}
