"""Ray Tune's results as our trials."""

from typing import Any

from ray.tune import Result, ResultGrid

from raylora.config import Job
from raylora.config.space import from_plain, trial_job
from raylora.leaderboard import Status, Trial
from raylora.metrics import Scores


def read_trials(job: Job, grid: ResultGrid) -> list[Trial]:
    """Every trial of the sweep."""
    # public, `Result.config` is part of the last report, and a failed trial of a resumed sweep has none
    samples = grid._experiment_analysis.get_all_configs()  # pyright: ignore[reportPrivateUsage]
    results = (grid[i] for i in range(len(grid)))
    trials = {result.path.rstrip("/").rpartition("/")[2]: result for result in results}
    return [_read_trial(job, name, from_plain(samples[name]), result) for name, result in trials.items()]


def _read_trial(job: Job, name: str, sample: dict[str, Any], result: Result) -> Trial:
    metrics = result.metrics or {}
    if result.error is not None:
        return Trial(name, sample, "failed", reason=reason_of(result.error))
    if "score" not in metrics:
        return Trial(name, sample, "stopped", reason="stopped before its first evaluation")
    return Trial(
        name=name,
        sample=sample,
        status=_status(job, sample, metrics),
        score=metrics["score"],
        validation=Scores.of(metrics, "best_"),
        best_epoch=metrics["best_epoch"],
        epochs=round(metrics["epoch"]),
        trainable_parameters=metrics["trainable_parameters"],
        latency_ms=metrics["latency_ms"],
        train_s=metrics["train_s"],
        packed=metrics["packed"],
        checkpoint_path=result.checkpoint.path if result.checkpoint else metrics.get("checkpoint_path"),
    )


def _status(job: Job, sample: dict[str, Any], metrics: dict[str, Any]) -> Status:
    train = trial_job(job, sample).train
    epochs, patience = round(metrics["epoch"]), train.early_stopping_patience
    if epochs >= train.num_train_epochs or (patience and epochs - metrics["best_epoch"] >= patience):
        return "finished"
    return "stopped"


def reason_of(error: Exception) -> str:
    """The trial's own last words, without Ray's wrapping."""
    cause: BaseException | None = error
    while getattr(cause, "cause", None) is not None:
        cause = getattr(cause, "cause", None)
    lines = [line for line in str(cause).strip().splitlines() if line.strip()]
    last = lines[-1] if lines else type(cause).__name__
    return last.removeprefix("raylora.errors.").removeprefix("TrainingError: ")
