"""The end of a sweep: the leaderboard, the winner's adapter, and what its score is worth."""

import tempfile
from pathlib import Path
from typing import Any

import ray
from ray.tune import Checkpoint

from raylora.cluster.placement import WorkerPlan, remote_options
from raylora.cluster.report import report_finished
from raylora.cluster.resolve import Resolution
from raylora.cluster.storage.lock import Held
from raylora.cluster.storage.run_folder import ADAPTER, BEST_CONFIG, FINISHED, TRIALS_TABLE, RunFolder
from raylora.cluster.tune.search import mode_of
from raylora.cluster.tune.shared_base import SharedBase
from raylora.config import Job, TuneSection
from raylora.config.file import dump
from raylora.config.space import trial_job
from raylora.errors import TrainingError
from raylora.floor import WORDS
from raylora.leaderboard import Trial, pareto, rank, table, to_csv
from raylora.model.fit.finish import Finished, finish
from raylora.model.fit.splits import Worker
from raylora.model.resolved import ResolvedJob
from raylora.records import Say, TuneResult


def conclude(
    found: Resolution, held: Held, trials: list[Trial], shared_bases: dict[str, SharedBase], say: Say
) -> TuneResult:
    """Write trials.csv, best_config.yaml, the winner's adapter and, last, metrics.json.

    Raises:
        TrainingError: no trial has a score.
        LockError: another job took the sweep over.
    """
    held.check()
    job, folder = found.job, found.folder
    ranked = rank(trials, mode_of(job))
    size = job.tune.metric[1] if isinstance(job.tune.metric, list) else "trainable_parameters"
    front = pareto(ranked, mode_of(job), size)
    folder.write_text(TRIALS_TABLE, to_csv(ranked, front))
    for line in table(ranked, trial_job(job, {}).metric):
        say(line)
    floor = shared_bases[trial_job(job, ranked[0].sample).model.base_model].floor
    if floor:
        column = trial_job(job, {}).metric
        metric = floor.splits["validation"].task.metric_of(column)
        for baseline, words in WORDS.items():
            score = floor.splits["validation"].scores(baseline)[metric]
            shown = f"{score:<10.4f}{words}" if metric == column else f"{'-':<10}{words}: {metric} {score:.4f}"
            say(f"{'-':<5}{shown}, without an adapter")
    if isinstance(job.tune.metric, list):
        say(f"pareto     {', '.join(f'{t.name} ({_chosen_by(t):.4f}, {getattr(t, size):,})' for t in front)}")
    winner = ranked[0]
    if winner.score is None:
        reasons = "\n".join(f"  {trial.name}: {trial.reason}" for trial in ranked[:5])
        raise TrainingError(f"all {len(ranked)} trials failed:\n{reasons}")
    best = trial_job(job, winner.sample)
    folder.write_text(BEST_CONFIG, dump(best.model_copy(update={"run_name": None, "tune": TuneSection()})))
    done = _finish(found, held, best, winner, shared_bases[best.model.base_model])
    metrics = _metrics(job, trials, winner, front, done, shared_bases[best.model.base_model])
    held.check()
    folder.write_json(FINISHED, metrics)
    report_finished(folder.location, say)
    return TuneResult(
        folder_uri=folder.uri,
        adapter_uri=folder.inside(ADAPTER),
        trials=len(trials),
        sample=winner.sample,
        validation=done.validation,
        test=done.test,
        floor=done.floor,
        metrics=metrics,
    )


def _chosen_by(trial: Trial) -> float | None:
    return trial.score if trial.mean_score is None else trial.mean_score


def _finish(found: Resolution, held: Held, best: Job, winner: Trial, shared: SharedBase) -> Finished:
    """The winner's adapter, scored on the test split, which no trial has seen; on a worker's resources."""
    task: Any = ray.remote(_finish_there).options(**remote_options(found.plan))
    return ray.get(task.remote(found.of(best), held, shared, winner, found.plan))


def _finish_there(resolved: ResolvedJob, held: Held, shared: SharedBase, winner: Trial, plan: WorkerPlan) -> Finished:
    folder = RunFolder(resolved.job)
    worker = Worker(threads=None if plan.use_gpu else plan.threads, use_gpu=plan.use_gpu)
    assert winner.checkpoint_path and winner.best_epoch, "a trial with a score has reported a checkpoint"
    checkpoint = Checkpoint(winner.checkpoint_path, filesystem=folder.filesystem)
    with checkpoint.as_directory() as files, tempfile.TemporaryDirectory(prefix="raylora-") as scratch:
        adapter = Path(scratch) / ADAPTER
        splits = shared.all_rows(resolved.job).load()
        done = finish(resolved.on_this_node(), splits, shared.floor, Path(files), winner.best_epoch, worker, adapter)
        held.check()
        folder.upload(adapter, ADAPTER)
    return done


def _metrics(
    job: Job, trials: list[Trial], winner: Trial, front: list[Trial], done: Finished, shared: SharedBase
) -> dict[str, Any]:
    first = shared.dataset.task.metrics[0]
    return {
        "run_name": job.run_name,
        "base_model": shared.base.id,
        "labels": list(shared.dataset.labels),
        "data": shared.dataset.facts,
        "trials": {status: sum(t.status == status for t in trials) for status in ("finished", "stopped", "failed")},
        "winner": {
            "trial": winner.name,
            "sample": winner.sample,
            "best_epoch": winner.best_epoch,
            **({"mean_score": winner.mean_score, "std_score": winner.std_score} if job.tune.seeds > 1 else {}),
        },
        "pareto": [trial.name for trial in front],
        "validation": done.validation.as_dict(),  # chose the winner: optimistic
        "test": done.test.as_dict() if done.test else None,
        "test_minus_validation": done.test[first] - done.validation[first] if done.test else None,
        "floor": done.floor,
        **done.learned,
        "trainable_parameters": done.trainable,
        "parameters": done.parameters,
    }
