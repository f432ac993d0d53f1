"""A tune job: one dataset, workers that own the hardware, Ray Tune over light trainables, the best trial's adapter."""

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import ray
import ray.tune
from ray.tune import CheckpointConfig, FailureConfig, RunConfig, TuneConfig, Tuner

from raylora.cluster.data.labels import decide_task
from raylora.cluster.data.prepare import announce
from raylora.cluster.data.rows import Source
from raylora.cluster.data.same import check_same_rows
from raylora.cluster.events.stream import Consumer, head_line
from raylora.cluster.events.trackers.follow import tracked
from raylora.cluster.events.trackers.installed import check_trackers
from raylora.cluster.placement import need_of, one_worker, tell_bound, tell_wait
from raylora.cluster.resolve import Resolution, check_folder, resolve_on_cluster
from raylora.cluster.session import SETTLE_S, environ, look
from raylora.cluster.storage.lock import Held, hold
from raylora.cluster.storage.run_folder import CONFIG, TRIAL_RUNS, TRIALS, RunFolder
from raylora.cluster.tune import search
from raylora.cluster.tune.conclude import conclude
from raylora.cluster.tune.events import collect_trials
from raylora.cluster.tune.growth import growing
from raylora.cluster.tune.nested import NestedTrial, is_nested, plan_nested
from raylora.cluster.tune.pool import TRAINABLE, WorkerPool, plan_pool
from raylora.cluster.tune.restore import can_go_on, restore
from raylora.cluster.tune.results import read_trials
from raylora.cluster.tune.schedulers import MEMORY, KeepScheduler, Remembering
from raylora.cluster.tune.shared_base import SharedBase, make_shared_base
from raylora.cluster.tune.trainable import SweepTrainable
from raylora.config import Job
from raylora.config.file import dump
from raylora.config.space import Domain, draw_samples, parse_space, trial_job
from raylora.errors import ConfigError
from raylora.leaderboard import Trial
from raylora.model.base.find import BaseFolder, resolve
from raylora.model.fit.build import check_fits
from raylora.model.fit.start import Start, key_in_words
from raylora.model.limits import bytes_written
from raylora.records import Say, TuneResult


def tune(job: Job, sources: list[Source], say: Say) -> TuneResult:
    """Run a sweep, or go on with it where the run folder holds one.

    Args:
        job: with a run name.
        sources: the job's files, from `list_sources`.
        say: takes each line of progress.

    Raises:
        RayLoraError: the job or its search space cannot be; nothing was started that looks finished.
        TrainingError: every trial failed.
    """
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # a traceback per failed trial; ours is a line
    check_trackers(job.train.trackers, environ())
    folder = RunFolder(job)
    with hold(folder, say) as held:
        return _tune(folder, held, job, sources, say)


def _tune(folder: RunFolder, held: Held, job: Job, sources: list[Source], say: Say) -> TuneResult:
    space = parse_space(job)
    job = decide_task(check_folder(folder, job), sources, say)
    bases = _bases(job, space)
    _check_samples(job, space, bases)
    folder.check_room(bytes_written(job, next(iter(bases.values()))))  # one trial's, at the least
    say(f"sweep      {folder.uri}")
    say(f"base       {', '.join(f'{base.id} ({base.origin})' for base in bases.values())}")
    # Ray Train inside a trial is cleaned up by a watcher that asks Ray's dashboard
    with resolve_on_cluster(job, bases, folder, sources, say, one_worker(job.ray), dashboard=is_nested(job)) as found:
        examples = _examples(found.job, space)
        shared_bases = {name: make_shared_base(found, name, sources, examples) for name in bases}
        dataset = next(iter(shared_bases.values())).dataset
        check_same_rows(dataset.facts, folder)
        folder.write_text(CONFIG, dump(found.job))
        announce(dataset, folder, say)
        for name, shared in shared_bases.items():
            for line in _head_lines(shared.starts):
                say(line + (f"  ({name})" if len(shared_bases) > 1 else ""))
        tell_wait(need_of(found.plan), found.cluster, say)
        with tracked(found.job, folder, True, say) as tracking:
            trials = _search(found, held, space, shared_bases, say, tracking.add)
            result = conclude(found, held, trials, shared_bases, say)
            tracking.finish(folder, result.metrics, trials)
        return result


def _head_lines(starts: Mapping[str, Start]) -> list[str]:
    """Where the heads start, where that is not from the probe; by `start_key`, where it differs."""
    lines = {key: head_line(s.init, s.reason, 0) for key, s in starts.items() if s.reason or s.brings_head}
    if len(lines) == len(starts) and len(set(lines.values())) == 1:
        return list(lines.values())[:1]
    return [f"{line}  ({key_in_words(key)})" for key, line in lines.items()]


def _bases(job: Job, space: dict[str, Domain]) -> dict[str, BaseFolder]:
    """Every base model of the sweep, by name, resolved once."""
    domain = space.get("model.base_model")
    names = domain.values if domain else (job.model.base_model,)
    return {name: resolve(job.replace({"model.base_model": name}).model) for name in names}


def _check_samples(job: Job, space: dict[str, Domain], bases: dict[str, BaseFolder]) -> None:
    """Fail before any cluster starts on a sample that its base cannot have."""
    checked: set[str] = set()
    for trial in _examples(job, space):
        what = trial.lora.model_dump_json() + trial.model.base_model
        if what not in checked:
            try:
                check_fits(trial, bases[trial.model.base_model])
            except ConfigError as error:
                raise ConfigError(f"a sample of the search space can never be: {error}") from None
            checked.add(what)


def _examples(job: Job, space: dict[str, Domain]) -> list[Job]:
    """Every trial of a drawn search; of one that learns as it goes, a trial for each end of each key."""
    if job.tune.search_alg in ("random", "grid"):
        return [trial_job(job, sample) for sample in draw_samples(job, space)]
    return [trial_job(job, {key: value}) for key, domain in space.items() for value in domain.edges()]


def _search(
    found: Resolution,
    held: Held,
    space: dict[str, Domain],
    shared_bases: dict[str, SharedBase],
    say: Say,
    track: Consumer,
) -> list[Trial]:
    """Run Ray Tune until every trial has ended."""
    job, folder = found.job, found.folder
    total = search.num_samples(job, space)
    if can_go_on(folder):
        say("resuming   trials that have ended are not run again, others go on from their last checkpoint")
    cluster = look(found.cluster, SETTLE_S)  # nodes may have come meanwhile
    if is_nested(job):
        nested = plan_nested(job, cluster, total)
        say(f"trials     {total}, {nested.concurrent} at once: {nested}")
        with collect_trials(job, folder, say, [track]) as tell:
            run = NestedTrial(job, shared_bases, nested.workers, folder.inside(TRIAL_RUNS), tell, held)
            searcher = None if can_go_on(folder) else search.searcher(job, space, nested.concurrent)
            return read_trials(job, _tuner(job, space, run, searcher, folder).fit())
    lengths = next(iter(shared_bases.values())).dataset.splits["train"].lengths
    width = float(np.percentile(lengths, 90))
    plan = plan_pool(job, cluster, found.plan, total, width)
    say(f"trials     {total}, {plan.concurrent} at once: {plan}")
    tell_bound(found.plan.resources_per_worker, plan.count, cluster, say)
    pool = WorkerPool(job, plan, total, shared_bases, folder, say, [track])
    searcher = None if can_go_on(folder) else search.searcher(job, space, plan.concurrent)
    with pool as broker, growing(pool, searcher, cluster, say):
        trainable = SweepTrainable(job, broker, width, plan.workers.use_gpu)
        return read_trials(job, _tuner(job, space, trainable, searcher, folder).fit())


def _tuner(
    job: Job, space: dict[str, Domain], run: SweepTrainable | NestedTrial, searcher: Any, folder: RunFolder
) -> Tuner:
    def trial(config: dict[str, Any]) -> None:
        run(config)

    # next to nothing: the workers hold the CPUs, and a trainable that wanted one of its own would wait for ever
    trainable = ray.tune.with_resources(trial, {"CPU": TRAINABLE})
    if can_go_on(folder):
        return restore(folder, trainable)
    epochs = max(trial.train.num_train_epochs for trial in _examples(job, space))
    folder.location.inside(TRIALS).inside(MEMORY).delete()  # of a sweep that was killed before Ray Tune's first state
    # HyperBand pauses trials, and in a reused process a paused one was never started again: the sweep stood still
    reuse = not is_nested(job) and job.tune.scheduler != "hyperband"
    if is_nested(job) or job.tune.scheduler == "hyperband":
        # these trials end by themselves: a nested one, stopped at its last report, would be cut off from its cleaning
        # up, and HyperBand pauses one at its last epoch to wait for others that may never come
        epochs += 1
    scheduler = search.scheduler(job, space, epochs)
    return Tuner(
        trainable,
        param_space=search.param_space(job, space),
        tune_config=TuneConfig(
            search_alg=searcher,
            scheduler=scheduler,
            num_samples=search.num_samples(job, space),
            time_budget_s=job.tune.time_budget_s,
            reuse_actors=reuse,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=RunConfig(
            name=TRIALS,
            storage_path=folder.path,
            storage_filesystem=folder.filesystem,
            # PBT starts trials from others' earlier checkpoints
            checkpoint_config=CheckpointConfig(num_to_keep=None if job.tune.scheduler == "pbt" else 1),
            failure_config=FailureConfig(max_failures=job.ray.max_failures),
            callbacks=[KeepScheduler(scheduler)] if isinstance(scheduler, Remembering) else None,
            verbose=0,
        ),
    )
