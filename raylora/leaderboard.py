"""The trials of a sweep, ranked: what is printed, what trials.csv holds, who wins."""

import csv
import io
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from raylora.metrics import METRICS, Scores

Status = Literal["finished", "stopped", "failed"]
Mode = Literal["max", "min"]
SEED = "seed"  # in a sample, where `tune.seeds` makes several trials of each


@dataclass(frozen=True)
class Trial:
    """One trial as it ended. `validation` and `best_epoch` are of its best epoch, whose weights it keeps.

    Args:
        status: `stopped` by the scheduler or the time budget; `failed` for `reason`.
        score: of the sweep's metric, on the validation split.
        mean_score, std_score: of its sample over the seeds, among the trials that have a score; std_score (n - 1) where
            two have. Set by `rank`, with `tune.seeds` alone.
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
    mean_score: float | None = None
    std_score: float | None = None


def rank(trials: Sequence[Trial], mode: Mode) -> list[Trial]:
    """Best score first, then lower loss, then fewer trainable parameters; trials without a score last.

    Trials that differ by their seed alone stand together: their samples are ranked so by their means.
    """
    samples = [sorted(sample, key=lambda trial: _order([trial], mode)) for sample in _by_sample(trials)]
    return [trial for sample in sorted(samples, key=lambda each: _order(each, mode)) for trial in _with_mean(sample)]


def _by_sample(trials: Sequence[Trial]) -> list[list[Trial]]:
    """Trials that differ by their seed alone, together; without `tune.seeds`, each by itself."""
    samples: dict[str, list[Trial]] = {}
    for trial in trials:
        shared = json.dumps({**trial.sample, SEED: None}, sort_keys=True)
        samples.setdefault(shared if SEED in trial.sample else trial.name, []).append(trial)
    return list(samples.values())


def _order(trials: Sequence[Trial], mode: Mode) -> tuple[bool, float, float, int, str]:
    """Where these trials stand by their means."""
    scores = [trial.score for trial in trials if trial.score is not None]
    losses = [trial.validation.loss for trial in trials if trial.validation]
    score = (-1 if mode == "max" else 1) * statistics.fmean(scores) if scores else 0.0
    loss = statistics.fmean(losses) if losses else 0.0
    return not scores, score, loss, trials[0].trainable_parameters or 0, trials[0].name


def _with_mean(sample: list[Trial]) -> list[Trial]:
    scores = [trial.score for trial in sample if trial.score is not None]
    if SEED not in sample[0].sample or not scores:
        return sample
    spread = statistics.stdev(scores) if len(scores) > 1 else None
    return [replace(trial, mean_score=statistics.fmean(scores), std_score=spread) for trial in sample]


def pareto(trials: Sequence[Trial], mode: Mode, size: str) -> list[Trial]:
    """Trials that no other beats in score and in `size` (a field of Trial, less is better) at once; smallest first.

    With `tune.seeds`, samples that no other beats so by mean score, each by its best trial.
    """
    scored = [t for t in rank(trials, mode) if t.score is not None and getattr(t, size) is not None]
    front: list[Trial] = []
    for trial in scored:  # from the best score down: one belongs if it is smaller than all better ones
        if not front or getattr(trial, size) < getattr(front[-1], size):
            front.append(trial)
    return front[::-1]


def to_csv(ranked: Sequence[Trial], front: Sequence[Trial]) -> str:
    """trials.csv: a row per trial, best first; a column per searched key."""
    scored = {name for trial in ranked if trial.validation for name in trial.validation}
    metrics = [name for name in METRICS if name in scored]
    keys = list(dict.fromkeys(key for trial in ranked for key in trial.sample))
    means = ["mean_score", "std_score"] if SEED in keys else []
    columns = ["rank", "trial", "status", "score", *means, *metrics, "best_epoch", "epochs"]
    columns += ["trainable_parameters", "latency_ms", "train_s", "packed", "pareto", *keys, "reason"]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for place, trial in enumerate(ranked, 1):
        scores = trial.validation.as_dict() if trial.validation else {}
        row = {name: getattr(trial, name) for name in columns if hasattr(trial, name)}
        row |= {name: scores.get(name) for name in metrics}
        writer.writerow({**row, "rank": place, "trial": trial.name, "pareto": int(trial in front), **trial.sample})
    return text.getvalue()


def table(ranked: Sequence[Trial], metric: str, most: int = 10) -> list[str]:
    """The leaderboard's lines for a terminal."""
    width = max(10, len(metric) + 2)
    mean = f"{'mean':<17}" if any(SEED in trial.sample for trial in ranked) else ""
    lines = [f"{'rank':<5}{metric:<{width}}{mean}{'epoch':<7}{'parameters':>11}  {'status':<9} sample"]
    for place, trial in enumerate(ranked[:most], 1):
        score = f"{f'{trial.score:.4f}' if trial.score is not None else '-':<{width}}"
        score += f"{_mean(trial):<17}" if mean else ""
        size = f"{trial.trainable_parameters:,}" if trial.trainable_parameters else "-"
        epochs = f"{trial.best_epoch or '-'}/{trial.epochs}"
        lines.append(f"{place:<5}{score}{epochs:<7}{size:>11}  {trial.status:<9} {describe(trial.sample)}")
        if trial.reason:
            lines.append(" " * (len(mean) + 25 + width) + trial.reason)
    if len(ranked) > most:
        lines.append(f"and {len(ranked) - most} more, in trials.csv")
    return lines


def _mean(trial: Trial) -> str:
    if trial.mean_score is None:
        return "-"
    return f"{trial.mean_score:.4f}" + ("" if trial.std_score is None else f" ± {trial.std_score:.4f}")


def describe(sample: dict[str, Any]) -> str:
    """A sample in a few words: `r=8 learning_rate=0.0012`."""
    return " ".join(f"{key.rpartition('.')[2]}={_short(value)}" for key, value in sample.items())


def _short(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(str(item) for item in value)
    return f"{value:.3g}" if isinstance(value, float) else str(value)
