"""A train job: Ray Data makes the dataset, Ray Train runs `fit` on its workers, the run folder keeps the outcome."""

from typing import Any

from ray.train import Result

from raylora.cluster.data.dataset import Dataset
from raylora.cluster.data.frozen_states import with_frozen_states
from raylora.cluster.data.labels import decide_task
from raylora.cluster.data.prepare import announce, prepare
from raylora.cluster.data.rows import Source
from raylora.cluster.data.same import check_same_rows
from raylora.cluster.data.wanted import check_wanted
from raylora.cluster.events.history import Event
from raylora.cluster.events.stream import follow
from raylora.cluster.events.trackers.follow import tracked
from raylora.cluster.events.trackers.installed import check_trackers
from raylora.cluster.placement import need_of, tell_wait
from raylora.cluster.report import report_finished
from raylora.cluster.resolve import Resolution, check_folder, resolve_on_cluster
from raylora.cluster.session import environ
from raylora.cluster.storage.lock import Held, hold
from raylora.cluster.storage.run_folder import ADAPTER, CONFIG, FINISHED, RunFolder
from raylora.cluster.train.workers import Task, global_batch_size, run_workers
from raylora.config import Job
from raylora.config.file import dump
from raylora.metrics import Scores
from raylora.model.base.find import resolve
from raylora.model.base.load import load_tokenizer
from raylora.model.fit.build import check_fits
from raylora.model.limits import bytes_written
from raylora.model.tokens import spec_for
from raylora.records import Say, TrainResult


def train(job: Job, sources: list[Source], say: Say) -> TrainResult:
    """Run a train job, or go on with it where the run folder holds a checkpoint.

    Args:
        job: with a run name.
        sources: the job's files, from `list_sources`.
        say: takes each line of progress.

    Raises:
        RayLoraError: the job cannot be; nothing was started that looks finished.
        TrainingError: the run failed; the same command goes on from its last checkpoint.
    """
    check_trackers(job.train.trackers, environ())
    folder = RunFolder(job)
    with hold(folder, say) as held:
        return _train(folder, held, job, sources, say)


def _train(folder: RunFolder, held: Held, job: Job, sources: list[Source], say: Say) -> TrainResult:
    job = decide_task(check_folder(folder, job), sources, say)
    base = resolve(job.model)
    check_fits(job, base)
    folder.check_room(bytes_written(job, base))
    tokenizer = spec_for(load_tokenizer(base.path), job.data)
    say(f"run        {folder.uri}")
    say(f"base       {base.id} ({base.origin})")
    with resolve_on_cluster(job, {job.model.base_model: base}, folder, sources, say) as found:
        job, resolved, plan = found.job, found.of(found.job), found.plan
        dataset = prepare(job, sources, tokenizer)
        check_wanted([job], dataset)
        check_same_rows(dataset.facts, folder)
        folder.write_text(CONFIG, dump(job))
        announce(dataset, folder, say)
        dataset = with_frozen_states(dataset, resolved, use_gpu=plan.use_gpu)
        if dataset.frozen_states:
            say(f"frozen     layers below {dataset.frozen_depth} are constant: computed once for every row")
        last = _last_report(folder)
        if last:
            say(f"resuming   from epoch {last['epoch']:g} of {job.train.num_train_epochs}, step {last['step']}")
        tell_wait(need_of(plan), found.cluster, say)
        last_step = last["step"] if last else 0
        with tracked(job, folder, False, say, last_step) as tracking:
            with follow(folder, say, last_step, [tracking.add]) as log:
                rows = _global_batch_size(last) or global_batch_size(job, plan)
                outcome = run_workers(Task(resolved, dataset, plan, rows, log, held))
            held.check()
            result = _conclude(found, dataset, outcome, say)
            tracking.finish(folder, result.metrics)
    return result


def _last_report(folder: RunFolder) -> Event | None:
    """Metrics of the last checkpoint, where there is one."""
    try:
        return Result.from_path(folder.path, storage_filesystem=folder.filesystem).metrics
    except RuntimeError:
        return None


def _global_batch_size(last: Event | None) -> int | None:
    """Of the run that goes on; runs of 0.1.0 before November 2026 named it `step_rows`."""
    return last.get("global_batch_size", last.get("step_rows")) if last else None


def _conclude(found: Resolution, dataset: Dataset, outcome: dict[str, Any], say: Say) -> TrainResult:
    job, folder = found.job, found.folder
    metrics = {
        "run_name": job.run_name,
        "base_model": found.bases[job.model.base_model].id,
        "labels": list(dataset.labels),
        "data": dataset.facts,
        **outcome,
        "cluster": str(found.cluster),
    }
    folder.write_json(FINISHED, metrics)
    report_finished(folder.location, say)
    return TrainResult(
        folder_uri=folder.uri,
        adapter_uri=folder.inside(ADAPTER),
        labels=dataset.labels,
        validation=Scores.of(outcome["validation"]),
        test=Scores.of(outcome["test"]) if outcome["test"] else None,
        floor=outcome["floor"],
        best_epoch=outcome["best_epoch"],
        metrics=metrics,
    )
