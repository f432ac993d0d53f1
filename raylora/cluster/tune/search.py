"""`tune.*` as Ray Tune's own searchers and schedulers."""

from typing import Any

from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import BasicVariantGenerator, ConcurrencyLimiter, SearchAlgorithm, Searcher
from ray.tune.search.optuna import OptunaSearch

from raylora.cluster.tune.schedulers import EPOCHS, SCORE, Asha, HyperBand, MedianStopping, PopulationBased
from raylora.config import Job
from raylora.config.space import Domain, draw_samples, seeds, to_plain
from raylora.leaderboard import Mode
from raylora.metrics import greater_is_better


def mode_of(job: Job) -> Mode:
    """`max`, or `min` for a sweep by loss."""
    return "max" if greater_is_better(job.tune.score or job.metric) else "min"


def searcher(job: Job, space: dict[str, Domain], concurrent: int) -> SearchAlgorithm | Searcher:
    """Proposes trials; those of a random or grid search are drawn beforehand: known, checked, the same on resuming."""
    if job.tune.search_alg in ("random", "grid"):
        points = [{key: to_plain(value) for key, value in sample.items()} for sample in draw_samples(job, space)]
        return BasicVariantGenerator(points_to_evaluate=points, max_concurrent=concurrent)
    from optuna import logging, samplers

    logging.set_verbosity(logging.WARNING)
    random = min(10, max(concurrent, job.tune.num_samples // 3))  # drawn before anything is known
    sampler = (
        samplers.TPESampler(seed=job.seed, n_startup_trials=random, constant_liar=True)
        if job.tune.search_alg == "optuna"
        else samplers.GPSampler(seed=job.seed, n_startup_trials=random)
    )
    two = isinstance(job.tune.metric, list)
    metric = [SCORE, job.tune.metric[1]] if isinstance(job.tune.metric, list) else SCORE
    search = OptunaSearch(metric=metric, mode=[mode_of(job), "min"] if two else mode_of(job), sampler=sampler)
    return ConcurrencyLimiter(search, max_concurrent=concurrent)


def param_space(job: Job, space: dict[str, Domain]) -> dict[str, Any]:
    """The domains as Ray Tune's, with the key that tells the trials of a sample apart."""
    several = {"seed": Domain("choice", tuple(seeds(job)))} if job.tune.seeds > 1 else {}
    return {key: _domain(domain) for key, domain in {**space, **several}.items()}


def _domain(domain: Domain) -> Any:
    values = [to_plain(value) for value in domain.values]
    if domain.kind in ("choice", "grid"):
        return tune.choice(values)
    if domain.kind == "fixed":
        return values[0]
    makers = {
        "uniform": tune.uniform,
        "quniform": tune.quniform,
        "loguniform": tune.loguniform,
        "randint": tune.randint,
    }
    return makers[domain.kind](*values)


def num_samples(job: Job, space: dict[str, Domain]) -> int:
    """Trials of the sweep, the whole grid and every seed counted."""
    return len(draw_samples(job, space)) if job.tune.search_alg in ("random", "grid") else job.tune.num_samples


def scheduler(job: Job, space: dict[str, Domain], epochs: int) -> TrialScheduler:
    """Stops trials early by their score after each epoch, of at most `epochs`; remembers through a kill."""
    chosen = job.tune
    by: dict[str, Any] = {"time_attr": EPOCHS, "metric": SCORE, "mode": mode_of(job)}
    if chosen.scheduler == "asha":
        grace = min(chosen.grace_period, epochs)
        return Asha(**by, max_t=epochs, grace_period=grace, reduction_factor=chosen.reduction_factor)
    if chosen.scheduler == "hyperband":
        return HyperBand(**by, max_t=epochs, reduction_factor=chosen.reduction_factor)
    if chosen.scheduler == "median":
        return MedianStopping(**by, grace_period=chosen.grace_period)
    if chosen.scheduler == "pbt":
        mutations = {key: d for key, d in param_space(job, space).items() if space[key].kind != "fixed"}
        settings = {"perturbation_interval": chosen.grace_period, "hyperparam_mutations": mutations, "synch": False}
        return PopulationBased(job.seed, **by, **settings)
    return FIFOScheduler()
