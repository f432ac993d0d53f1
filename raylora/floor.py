"""What an adapter must beat: two classifiers that cost next to nothing, on the same splits, and by how much it does."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from raylora.config import Job
from raylora.metrics import greater_is_better
from raylora.resampling import interval, resampled
from raylora.tasks import TASKS, Task

if TYPE_CHECKING:
    import numpy as np

Baseline = Literal["tfidf", "probe"]
WORDS: dict[Baseline, str] = {"tfidf": "TF-IDF", "probe": "linear probe"}
BASELINES: tuple[Baseline, ...] = ("tfidf", "probe")


@dataclass(frozen=True)
class FloorSplit:
    """A split as the baselines see it. `rows` [n] are places in the split's table, of all its rows or of a sample;
    `predicted` are a task's decisions for them, shaped as `targets`."""

    rows: "np.ndarray"
    targets: "np.ndarray"
    predicted: dict[Baseline, "np.ndarray"]
    num_labels: int
    task: Task = TASKS["single_label_classification"]

    def scores(self, baseline: Baseline) -> dict[str, float]:
        """By name of a metric, those of the task that decisions alone give."""
        return self.task.decided_scores(self.targets, self.predicted[baseline], self.num_labels)


@dataclass(frozen=True)
class Floor:
    """A linear model (`probe`) on TF-IDF, and one on the frozen base's mean-pooled states.

    `splits` by name, validation and, where there is one, test; `train_rows` both were fitted on; `seconds` they took.
    """

    splits: dict[str, FloorSplit]
    train_rows: int
    seconds: float

    def to_json(self) -> str:
        splits = {
            name: {
                "rows": split.rows.tolist(),
                "label_ids": split.targets.tolist(),
                "predicted": {baseline: ids.tolist() for baseline, ids in split.predicted.items()},
                "num_labels": split.num_labels,
                "problem_type": split.task.problem_type,
                "task": asdict(split.task),
            }
            for name, split in self.splits.items()
        }
        return json.dumps({"splits": splits, "train_rows": self.train_rows, "seconds": self.seconds})


def read_floor(text: str) -> Floor:
    """`Floor.to_json` undone."""
    import numpy as np

    held = json.loads(text)
    splits = {
        name: FloorSplit(
            np.array(split["rows"]),
            np.array(split["label_ids"]),
            {baseline: np.array(ids) for baseline, ids in split["predicted"].items()},
            # of runs before December 2026: as many as were seen
            split.get("num_labels") or 1 + max(map(max, (split["label_ids"], *split["predicted"].values()))),
            replace(TASKS[split.get("problem_type", "single_label_classification")], **split.get("task", {})),
        )
        for name, split in held["splits"].items()
    }
    return Floor(splits, held["train_rows"], held["seconds"])


@dataclass(frozen=True)
class Difference:
    """How much better an adapter is than a baseline, below zero where it is worse; `low` and `high` end the 95 %
    interval."""

    value: float
    low: float
    high: float


def difference(split: FloorSplit, ours: "np.ndarray", baseline: Baseline, metric: str) -> Difference:
    """Of two on the same rows, with a paired bootstrap's interval (Efron & Tibshirani 1993, ch. 13).

    Args:
        ours: [n, ...] decisions for the split's rows.
        metric: one of the task's `decided`.
    """

    def values_of(draws: "np.ndarray") -> "dict[str, np.ndarray]":
        both = {"own": ours, "its": split.predicted[baseline]}
        return {
            name: split.task.resampled(metric, draws, split.targets, decisions, split.num_labels)
            for name, decisions in both.items()
        }

    found = resampled(values_of, len(split.targets))
    own, its = found["own"], found["its"]
    merits = own - its if greater_is_better(metric) else its - own
    return Difference(float(merits[0]), *interval(merits))


def summary(floor: Floor, predicted: Mapping[str, "np.ndarray"], metric_for_best_model: str) -> dict[str, Any]:
    """A floor beside an adapter, as metrics.json and the adapter's manifest hold it.

    Args:
        predicted: [N, ...] decisions for a whole split by the adapter; a split that is left out is not compared.
        metric_for_best_model: by which the better baseline is chosen and the difference is taken (`Task.metric_of`).
    """
    metric = next(iter(floor.splits.values())).task.metric_of(metric_for_best_model)
    sign = 1 if greater_is_better(metric) else -1
    splits: dict[str, Any] = {}
    for name, split in floor.splits.items():
        scores = {baseline: split.scores(baseline) for baseline in split.predicted}
        highest = max(split.predicted, key=lambda baseline: sign * scores[baseline][metric])
        splits[name] = {**scores, "rows": len(split.rows), "highest": highest}
        if name in predicted:
            ours = predicted[name][split.rows]
            gap = difference(split, ours, highest, metric)
            splits[name]["difference"] = {"against": highest, **asdict(gap)}
    return {**splits, "metric": metric, "train_rows": floor.train_rows, "seconds": round(floor.seconds, 3)}


def floor_line(floor: Mapping[str, Any]) -> str:
    """What the baselines reach, for a terminal."""
    split, metric = floor["validation"], floor["metric"]
    scores = ", ".join(f"{words} {split[baseline][metric]:.4f}" for baseline, words in WORDS.items())
    of = f"validation {metric}, {split['rows']:,} rows; {floor['train_rows']:,} train rows, {floor['seconds']:.0f} s"
    return f"{scores}  ({of})"


def difference_line(floor: Mapping[str, Any], split: str) -> str:
    """How an adapter stands to the higher baseline of a split, for a terminal."""
    gap, metric = floor[split]["difference"], floor["metric"]
    highest = f"{WORDS[gap['against']]} {floor[split][gap['against']][metric]:.4f}"
    interval = f"95 % interval {gap['low']:+.4f} to {gap['high']:+.4f}, {floor[split]['rows']:,} rows"
    return f"{metric} {gap['value']:+.4f} against {highest}  ({interval})"


def advice(job: Job) -> str:
    """What to change where an adapter ends below its floor: what differs from the defaults, by what mattered most."""
    default, now = Job(), job
    wanted: list[str] = []
    if now.train.head_init != default.train.head_init:
        wanted.append(f"train.head_init={default.train.head_init}")
    if now.lora.target_modules != default.lora.target_modules:
        wanted.append(f"lora.target_modules={default.lora.target_modules}")
    if now.lora.layers_to_transform is not None:
        wanted.append("lora.layers_to_transform=null")
    if now.train.learning_rate < default.train.learning_rate:
        wanted.append(f"train.learning_rate={default.train.learning_rate:g}")
    if now.train.num_train_epochs < default.train.num_train_epochs:
        wanted.append(f"train.num_train_epochs={default.train.num_train_epochs}")
    changes = f"Change what keeps it there: {' '.join(wanted)}. " if wanted else ""
    return (
        f"{changes}Else more rows, more `train.num_train_epochs` or other hyperparameters may lift it; if not, this "
        "base model knows little of these texts."
    )


def is_below(floor: Mapping[str, Any]) -> bool:
    """Whether the adapter ends below its floor: on the test split where there is one, else on validation."""
    split = "test" if "test" in floor else "validation"
    return floor[split].get("difference", {"value": 0})["value"] < 0
