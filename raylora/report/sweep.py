"""What a sweep's page shows, out of the files in its folder."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from raylora.metrics import METRICS
from raylora.report.svg import Line, Point, chart, parallel

NO_KEYS = (
    "rank",
    "trial",
    "status",
    "score",
    "mean_score",
    "std_score",
    "best_epoch",
    "epochs",
    "trainable_parameters",
)
NOT_SEARCHED = {*NO_KEYS, "latency_ms", "train_s", "packed", "pareto", "reason", *METRICS}
MOST_TRIALS = 25  # of the table
MOST_CURVES = 12
Row = Mapping[str, str]


@dataclass(frozen=True)
class SweepFiles:
    """As they were read; empty where a file is not there yet.

    Args:
        config: of config.yaml; `config_text` is that file.
        trials: of trials.csv, best first.
        metrics, history, data_report: as of `run.RunFiles`.
    """

    name: str
    config: Mapping[str, Any]
    config_text: str
    trials: Sequence[Row] = field(default_factory=tuple)
    metrics: Mapping[str, Any] | None = None
    history: Sequence[Mapping[str, Any]] = field(default_factory=tuple)
    data_report: Mapping[str, Any] | None = None

    @property
    def metric(self) -> str:
        wanted = self.config.get("tune", {}).get("metric")
        first = wanted[0] if isinstance(wanted, list) else wanted
        return first or self.config.get("train", {}).get("metric_for_best_model") or "score"

    @property
    def keys(self) -> list[str]:
        """Those that were searched."""
        return [name for name in self.trials[0] if name not in NOT_SEARCHED] if self.trials else []


def verdict(found: SweepFiles) -> str:
    """The winner, and how it stands beside the others, in a sentence or two."""
    scored = [float(row["score"]) for row in found.trials if row["score"]]
    if not scored:
        return "The sweep has not finished: what follows is what it has reached so far."
    failed = sum(row["status"] == "failed" for row in found.trials)
    best = found.trials[0]
    sample = ", ".join(f"{key.split('.')[-1]} = {best[key]}" for key in found.keys)
    middle = sorted(scored)[len(scored) // 2]
    return (
        f"The best of {len(found.trials)} trials reaches {scored[0]:.4f} {found.metric} on validation, with {sample}; "
        f"the middle one {middle:.4f}. The highest of many is partly luck: its test score tells what it is worth."
        + (f" {failed} failed." if failed else "")
    )


def leaderboard(found: SweepFiles) -> dict[str, Any] | None:
    if not found.trials:
        return None
    columns = ["rank", "trial", "score", "status", "best_epoch", "train_s", *found.keys, "reason"]
    kept = [column for column in columns if any(row.get(column) for row in found.trials)]
    return {"columns": kept, "rows": found.trials[:MOST_TRIALS], "more": max(len(found.trials) - MOST_TRIALS, 0)}


def curves(found: SweepFiles) -> list[tuple[str, str]]:
    """Title and drawing of each chart that the files have points for."""
    told = [event for event in found.history if event.get("kind") == "trial" and "score" in event]
    metric = found.metric
    drawn = {
        f"Best {metric} so far, by reports of trials": chart(
            f"Best {metric} so far", [Line("best", _best_so_far(found, told), "b")], "reports of trials", metric
        ),
        f"{metric} on validation by epoch, of the first {MOST_CURVES} trials of the table": chart(
            f"{metric} by epoch of each trial", _by_epoch(found, told), "epoch", metric
        ),
        f"What was tried, and the {metric} it came to: a line a trial, the best in colour": parallel(
            "Searched keys and score of each trial", [*found.keys, metric], _tried(found)
        ),
    }
    return [(title, drawing) for title, drawing in drawn.items() if drawing]


def facts(found: SweepFiles) -> dict[str, str]:
    tune = found.config.get("tune", {})
    shown = {
        "trials": len(found.trials) or None,
        "search": tune.get("search_alg"),
        "scheduler": tune.get("scheduler"),
        "base model": found.config.get("model", {}).get("base_model"),
        "task": found.config.get("data", {}).get("problem_type"),
        "cluster": (found.metrics or {}).get("cluster"),
    }
    return {name: str(value) for name, value in shown.items() if value}


def _best_so_far(found: SweepFiles, told: Sequence[Mapping[str, Any]]) -> list[Point]:
    better = min if found.config.get("tune", {}).get("mode") == "min" else max
    best: list[float] = []
    for event in told:
        best.append(better([event["score"], *best[-1:]]))
    return [(float(i), score) for i, score in enumerate(best, 1)]


def _by_epoch(found: SweepFiles, told: Sequence[Mapping[str, Any]]) -> list[Line]:
    shown = [row["trial"] for row in found.trials[:MOST_CURVES]] or list(
        dict.fromkeys(event["trial"] for event in told)
    )[:MOST_CURVES]
    points = {name: [(event["epoch"], event["score"]) for event in told if event["trial"] == name] for name in shown}
    return [Line(name, points[name], "d" if i else "b", dots=True) for i, name in reversed(list(enumerate(shown)))]


def _tried(found: SweepFiles) -> list[list[float]]:
    """[trials, keys and score] from 0 to 1, worst trial first; keys that are no numbers by their order."""
    rows = [row for row in found.trials if row["score"]]
    columns = [_scaled([row[key] for row in rows]) for key in [*found.keys, "score"]]
    return [list(each) for each in zip(*columns, strict=True)][::-1]


def _scaled(cells: Sequence[str]) -> list[float]:
    """From 0 to 1; positive numbers that span more than a factor of twenty by their logarithm."""
    try:
        values = [float(cell) for cell in cells]
    except ValueError:
        names = sorted(set(cells))
        values = [float(names.index(cell)) for cell in cells]
    if values and min(values) > 0 and max(values) / min(values) > 20:
        values = [math.log(value) for value in values]
    low, high = min(values, default=0.0), max(values, default=0.0)
    return [(value - low) / (high - low) if high > low else 0.5 for value in values]
