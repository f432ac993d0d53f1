"""What running jobs measure, through `ray.util.metrics`: at the Prometheus port of the node where the driver runs."""

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, suppress
from typing import Any, Literal

from ray.util.metrics import Counter, Gauge

from raylora.cluster.periodic import run_every
from raylora.tasks import TASKS

Kind = Literal["gauge", "counter"]
KEPT_S = 5  # Ray forgets a gauge some 20 s after it was last set, and an epoch may take an hour
SHOWN = tuple(dict.fromkeys(metric for task in TASKS.values() for metric in task.shown))

# by name, as Ray takes it: (kind, meaning, tags). The port shows each as `ray_<name>`; a name is never reused.
METRICS: dict[str, tuple[Kind, str, tuple[str, ...]]] = {
    "raylora_train_loss": ("gauge", "training loss, mean since the log line before", ("run",)),
    "raylora_train_learning_rate": ("gauge", "learning rate", ("run",)),
    "raylora_train_rows_per_second": ("gauge", "train rows a second over all workers, evaluations left out", ("run",)),
    "raylora_train_epoch": ("gauge", "epochs done, in parts", ("run",)),
    **{f"raylora_train_eval_{name}": ("gauge", f"validation {name} of the last epoch", ("run",)) for name in SHOWN},
    "raylora_tune_trials": ("gauge", "trials that are waiting, running, ended or failed", ("run", "state")),
    "raylora_tune_best_score": ("gauge", "best score of the sweep's metric so far", ("run",)),
    "raylora_tune_epochs": ("counter", "epochs of trials that were trained and scored", ("run",)),
}

# an event's key by the metric that shows it
LOSS = {
    "raylora_train_loss": "loss",
    "raylora_train_learning_rate": "learning_rate",
    "raylora_train_rows_per_second": "rows_per_s",
    "raylora_train_epoch": "epoch",
}
EVALUATION = {**{f"raylora_train_eval_{name}": f"eval_{name}" for name in SHOWN}, "raylora_train_epoch": "epoch"}


class Gauges:
    """Of one run, whose name is the only tag beside a trial's state: a fixed number of series a run.

    What goes wrong in here goes unseen: no job fails by its metrics.
    """

    def __init__(self, run: str) -> None:
        self.run = run
        self.made: dict[str, Gauge | Counter] = {}
        self.last: dict[tuple[str, str], tuple[Gauge, float, dict[str, str]]] = {}

    def kept(self) -> AbstractContextManager[None]:
        """While this is open, each gauge stays at its last value."""
        return run_every(KEPT_S, self._set_again, "raylora-gauges", say=lambda line: None)

    def add(self, events: Iterable[Mapping[str, Any]]) -> None:
        """Show what a fit logs."""
        for event in events:
            shown = {"loss": LOSS, "evaluation": EVALUATION}.get(event["kind"], {})
            for name, key in shown.items():
                if key in event:
                    self.show(name, event[key])

    def trials(self, states: Mapping[str, int]) -> None:
        """Show how many trials of a sweep are in each state."""
        for state, count in states.items():
            self.show("raylora_tune_trials", count, state=state)

    def tune(self, best: float | None, new_epochs: int) -> None:
        """Show how far a sweep is."""
        if best is not None:
            self.show("raylora_tune_best_score", best)
        if new_epochs:
            self.show("raylora_tune_epochs", new_epochs)

    def show(self, name: str, value: float, **tags: str) -> None:
        """Set a gauge; add to a counter."""
        with suppress(Exception):
            metric = self.made.get(name) or self._make(name)
            tags = {"run": self.run, **tags}
            if isinstance(metric, Gauge):
                metric.set(float(value), tags)
                self.last[name, str(tags)] = metric, float(value), tags
            else:
                metric.inc(float(value), tags)

    def _set_again(self) -> None:
        for metric, value, tags in list(self.last.values()):
            with suppress(Exception):
                metric.set(value, tags)

    def _make(self, name: str) -> Gauge | Counter:
        kind, meaning, tags = METRICS[name]
        self.made[name] = (Gauge if kind == "gauge" else Counter)(name, meaning, tags)
        return self.made[name]
