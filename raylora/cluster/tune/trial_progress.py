"""How far a trial is, and the best it has reached; travels in its checkpoints."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from raylora.cluster.tune.checkpoints import Files
from raylora.config import TrainSection
from raylora.metrics import Scores

FILE = "trial.json"
SCORES = "scores"  # of a report that may stand for earlier epochs too: `TrialProgress.scores`


@dataclass
class TrialProgress:
    """Args:
    metric: of the sweep, without its prefix `eval_`.
    best: the report of the best epoch so far, whose weights the checkpoint holds.
    reports: of every epoch, as Ray Tune saw them.
    train_s: this trial's share of the time its worker trained and evaluated.
    """

    metric: str
    trainable_parameters: int
    latency_ms: float
    epochs: int = 0
    train_s: float = 0.0
    best: dict[str, Any] = field(default_factory=dict)
    reports: list[dict[str, Any]] = field(default_factory=list)

    @property
    def last(self) -> dict[str, Any]:
        """The report of the last epoch."""
        return self.reports[-1] if self.reports else {}

    @property
    def scores(self) -> list[float]:
        """The best so far after each epoch."""
        return [report["score"] for report in self.reports]

    def is_over(self, train: TrainSection) -> bool:
        """Whether the last epoch was the trial's end."""
        return bool(self.best) and train.is_over(self.epochs, self.best["epoch"])

    def add(self, metrics: dict[str, Any], seconds: float, packed: int) -> dict[str, Any]:
        """The report of one more epoch, as Ray Tune sees it: `score` is the best so far."""
        if not self.best or self._is_better(metrics):
            self.best = dict(metrics)
        self.epochs = round(metrics["epoch"])
        self.train_s += seconds
        report = {
            **metrics,
            "score": self.best[f"eval_{self.metric}"],
            **Scores.of(self.best, "eval_").as_dict("best_"),
            "best_epoch": round(self.best["epoch"]),
            "trainable_parameters": self.trainable_parameters,
            "latency_ms": self.latency_ms,
            "train_s": round(self.train_s, 3),
            "packed": packed,
        }
        self.reports.append(report)
        return report

    def _is_better(self, metrics: dict[str, Any]) -> bool:
        new, best = (Scores.of(record, "eval_").merit(self.metric) for record in (metrics, self.best))
        return new > best

    def seal(self, files: Files) -> Files:
        """A trial's checkpoint: the files with this one, which tells their sizes to `is_whole`."""
        sizes = {name: len(content) for name, content in files.items()}
        return {**files, FILE: json.dumps({**asdict(self), "sizes": sizes}).encode()}


def read_progress(files: Files) -> TrialProgress:
    held = json.loads(files[FILE])
    del held["sizes"]
    held.pop("greater_is_better", None)  # of sweeps before December 2026
    return TrialProgress(**held)


def is_whole(files: Files) -> bool:
    """False for a checkpoint whose writing or deletion was cut short."""
    try:
        sizes: dict[str, int] = json.loads(files[FILE])["sizes"]
    except (KeyError, ValueError):
        return False
    return sizes == {name: len(content) for name, content in files.items() if name != FILE}
