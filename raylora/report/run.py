"""What a run's page shows, out of the files in its folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from raylora.metrics import METRICS
from raylora.report.svg import Line, chart

Event = Mapping[str, Any]


@dataclass(frozen=True)
class RunFiles:
    """As they were read; None or empty where a file is not there yet.

    Args:
        config: of config.yaml; `config_text` is that file.
        metrics: of metrics.json.
        history: the records of history.jsonl, in order.
        data_report: of data_report.json.
        evaluation: of evaluation/evaluation.json, the first adapter's.
    """

    name: str
    config: Mapping[str, Any]
    config_text: str
    metrics: Mapping[str, Any] | None = None
    history: Sequence[Event] = field(default_factory=tuple)
    data_report: Mapping[str, Any] | None = None
    evaluation: Mapping[str, Any] | None = None


def verdict(metrics: Mapping[str, Any] | None) -> str:
    """How the run stands against its floor, in a sentence."""
    if metrics is None:
        return "The run has not finished: what follows is what it has reached so far."
    floor = metrics.get("floor")
    split = "test" if floor and floor.get("test") else "validation"
    found = floor[split].get("difference") if floor else None
    if not floor or not found:
        return "No floor was reckoned for this run, so nothing says what the adapter is worth beside a linear model."
    against = {"tfidf": "TF-IDF", "probe": "a linear probe of the frozen base"}[found["against"]]
    interval = f"95 % interval {found['low']:+.4f} to {found['high']:+.4f}"
    gap = f"{found['value']:+.4f} {floor['metric']} on {split} ({interval})"
    if found["low"] > 0:
        return f"The adapter is better than {against}: {gap}."
    if found["high"] < 0:
        return (
            f"The adapter is worse than {against}: {gap}. More rows or epochs, or other hyperparameters, may lift it."
        )
    return f"Whether the adapter is better than {against} is not settled by so few rows: {gap}."


def score_rows(metrics: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """A row a metric: its name, its value on each split, and what the floor reaches there."""
    if metrics is None:
        return []
    splits = [split for split in ("validation", "test") if metrics.get(split)]
    floor = metrics.get("floor") or {}
    return [
        {
            "metric": metric,
            "values": [metrics[split].get(metric) for split in splits],
            "floors": [
                {name: (floor.get(split) or {}).get(name, {}).get(metric) for name in ("tfidf", "probe")}
                for split in splits
            ],
        }
        for metric in METRICS
        if any(metric in metrics[split] for split in splits)
    ]


def curves(files: RunFiles) -> list[tuple[str, str]]:
    """Title and drawing of each chart that the history has points for."""
    losses = [each for each in files.history if each.get("kind") == "loss"]
    evaluations = [each for each in files.history if each.get("kind") == "evaluation"]
    metric = files.config.get("train", {}).get("metric_for_best_model") or "loss"
    best = [files.metrics["best_epoch"]] if files.metrics else []

    def of(records: Sequence[Event], key: str) -> list[tuple[float, float]]:
        return [(each["epoch"], each[key]) for each in records if each.get(key) is not None and "epoch" in each]

    drawn = {
        "Loss by epoch, of train batches and of validation": chart(
            "Loss by epoch",
            [Line("train", of(losses, "loss"), "a"), Line("validation", of(evaluations, "eval_loss"), "b", dots=True)],
            "epoch",
            "loss",
            best,
        ),
        f"{metric} on validation, by epoch": chart(
            f"{metric} by epoch",
            [Line(metric, of(evaluations, f"eval_{metric}"), "b", dots=True)],
            "epoch",
            metric,
            best,
        ),
        "Learning rate": chart(
            "Learning rate by epoch", [Line("rate", of(losses, "learning_rate"), "c")], "epoch", "learning rate"
        ),
    }
    return [(title, drawing) for title, drawing in drawn.items() if drawing]


def label_rows(metrics: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """A row a label, the commonest of train first: how many rows of each split carry it."""
    rows: Mapping[str, Mapping[str, int]] = (metrics or {}).get("data", {}).get("rows", {})
    train = rows.get("train", {})
    if not train or not all(isinstance(count, int) for count in train.values()):
        return []
    largest = max(train.values()) or 1
    names = sorted(train, key=lambda name: -train[name])
    return [
        {"label": name, "share": train[name] / largest, "counts": [rows[split].get(name, 0) for split in rows]}
        for name in names
    ]


def facts(files: RunFiles) -> dict[str, str]:
    """What the run was, by name."""
    found = files.metrics or {}
    shown = {
        "base model": found.get("base_model") or files.config.get("model", {}).get("base_model"),
        "task": files.config.get("data", {}).get("problem_type"),
        "trained parameters": _of(found.get("trainable_parameters"), found.get("parameters")),
        "precision": found.get("dtype"),
        "best epoch": found.get("best_epoch"),
        "training": f"{found['train_s']:,.0f} s, {found['rows_per_s']:,.0f} rows/s" if "train_s" in found else None,
        "cluster": found.get("cluster"),
        "workers": found.get("num_workers"),
        "data fingerprint": found.get("data", {}).get("fingerprint"),
    }
    return {name: f"{value:,}" if isinstance(value, int) else str(value) for name, value in shown.items() if value}


def _of(part: int | None, whole: int | None) -> str | None:
    return f"{part:,} of {whole:,} ({100 * part / whole:.2f} %)" if part and whole else None
