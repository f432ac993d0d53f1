"""The trials of a sweep, ranked: what is printed, what trials.csv holds, who wins."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from raylora.metrics import METRICS, Scores

Status = Literal["finished", "stopped", "failed"]
Mode = Literal["max", "min"]


@dataclass(frozen=True)
class Trial:
    """One trial as it ended. `validation` and `best_epoch` are of its best epoch, whose weights it keeps.

    Args:
        status: `stopped` by the scheduler or the time budget; `failed` for `reason`.
        score: of the sweep's metric, on the validation split.
    """

    name: str
    sample: dict[str, Any]
    status: Status
    score: float | None = None
    validation: Scores | None = None
    best_epoch: int | None = None
    epochs: int = 0
    trainable_parameters: int | None = None
    latency_ms: float | None = None
    train_s: float | None = None
    packed: int | None = None
    checkpoint_path: str | None = None
    reason: str | None = None


def rank(trials: Sequence[Trial], mode: Mode) -> list[Trial]:
    """Best score first, then lower loss, then fewer trainable parameters; trials without a score last."""
    sign = -1 if mode == "max" else 1

    def order(trial: Trial) -> tuple[bool, float, float, int, str]:
        score = 0.0 if trial.score is None else sign * trial.score
        loss = trial.validation.loss if trial.validation else 0.0
        return trial.score is None, score, loss, trial.trainable_parameters or 0, trial.name

    return sorted(trials, key=order)


def pareto(trials: Sequence[Trial], mode: Mode, size: str) -> list[Trial]:
    """Trials that no other beats in score and in `size` (a field of Trial, less is better) at once; smallest first."""
    scored = [t for t in rank(trials, mode) if t.score is not None and getattr(t, size) is not None]
    front: list[Trial] = []
    for trial in scored:  # from the best score down: one belongs if it is smaller than all better ones
        if not front or getattr(trial, size) < getattr(front[-1], size):
            front.append(trial)
    return front[::-1]


def to_csv(ranked: Sequence[Trial], front: Sequence[Trial]) -> str:
    """trials.csv: a row per trial, best first; a column per searched key."""
    keys = list(dict.fromkeys(key for trial in ranked for key in trial.sample))
    columns = ["rank", "trial", "status", "score", *METRICS, "best_epoch", "epochs"]
    columns += ["trainable_parameters", "latency_ms", "train_s", "packed", "pareto", *keys, "reason"]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for place, trial in enumerate(ranked, 1):
        scores = trial.validation.as_dict() if trial.validation else {}
        row = {name: getattr(trial, name) for name in columns if hasattr(trial, name)}
        row |= {name: scores.get(name) for name in METRICS}
        writer.writerow({**row, "rank": place, "trial": trial.name, "pareto": int(trial in front), **trial.sample})
    return text.getvalue()


def table(ranked: Sequence[Trial], metric: str, most: int = 10) -> list[str]:
    """The leaderboard's lines for a terminal."""
    lines = [f"{'rank':<5}{metric:<10}{'epoch':<7}{'parameters':>11}  {'status':<9} sample"]
    for place, trial in enumerate(ranked[:most], 1):
        score = f"{trial.score:.4f}" if trial.score is not None else "-"
        size = f"{trial.trainable_parameters:,}" if trial.trainable_parameters else "-"
        epochs = f"{trial.best_epoch or '-'}/{trial.epochs}"
        lines.append(f"{place:<5}{score:<10}{epochs:<7}{size:>11}  {trial.status:<9} {describe(trial.sample)}")
        if trial.reason:
            lines.append(f"{'':<34}{trial.reason}")
    if len(ranked) > most:
        lines.append(f"and {len(ranked) - most} more, in trials.csv")
    return lines


def describe(sample: dict[str, Any]) -> str:
    """A sample in a few words: `r=8 learning_rate=0.0012`."""
    return " ".join(f"{key.rpartition('.')[2]}={_short(value)}" for key, value in sample.items())


def _short(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(str(item) for item in value)
    return f"{value:.3g}" if isinstance(value, float) else str(value)
