"""The search space of a sweep: what each config key may be, checked against the config before anything starts."""

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal

from raylora.config import Job, keys
from raylora.config.explain import did_you_mean
from raylora.config.section import SEED_END
from raylora.errors import ConfigError

Kind = Literal["choice", "grid", "uniform", "quniform", "loguniform", "randint", "fixed"]
BOUNDS: dict[str, int] = {"uniform": 2, "quniform": 3, "loguniform": 2, "randint": 2}

REDRAWS = 100  # after so many the space is taken to hold no other sample
RATIO = "lora.lora_alpha_ratio"
# what a trial cannot have of its own: the rows are read and split once for the sweep, and it runs where the sweep runs
OUTSIDE = (
    "data.",
    "predict.",
    "ray.",
    "tune.",
    "seed",
    "run_name",
    "storage_path",
    "train.floor",
    "train.report_to",
    "model.pooling",
    "model.revision",
)


@dataclass(frozen=True)
class Domain:
    """Values one key may take, with Ray Tune's meaning (`randint` excludes its high end, `quniform` includes it).

    `values` are the choices, or the bounds (and the step of `quniform`).
    """

    kind: Kind
    values: tuple[Any, ...]

    def edges(self) -> tuple[Any, ...]:
        """Values that are checked against the config: all of a choice, else both ends."""
        if self.kind in ("choice", "grid", "fixed"):
            return self.values
        low, high = self.values[:2]
        return (low, high - 1) if self.kind == "randint" else (float(low), float(high))

    def draw(self, random: Any) -> Any:
        """One value, from a numpy Generator."""
        if self.kind in ("choice", "grid", "fixed"):
            return self.values[int(random.integers(len(self.values)))]
        low, high, *step = self.values
        if self.kind == "randint":
            return int(random.integers(low, high))
        if self.kind == "loguniform":
            return float(low * (high / low) ** random.random())
        value = low + (high - low) * random.random()
        return float(min(high, max(low, round(value / step[0]) * step[0]))) if step else float(value)


def parse_space(job: Job) -> dict[str, Domain]:
    """The domains of `tune.space`, by dotted key.

    Raises:
        ConfigError: a key is unknown or not a trial's own, a domain is malformed, or a value can never be: every
            fault is named at once.
    """
    faults: list[str] = []
    space: dict[str, Domain] = {}
    for key, wished in _flat(job.tune.space).items():
        try:
            space[key] = _domain(key, wished)
            _check_values(job, key, space[key])
        except ConfigError as error:
            faults.append(f"  tune.space.{key}: {error}")
    if not space and not faults:
        faults.append("  tune.space: no key to search")
    if RATIO in space and "lora.lora_alpha" in space:
        faults.append(f"  tune.space.{RATIO}: lora.lora_alpha is searched too; keep one of them")
    if (last := seeds(job)[-1]) >= SEED_END:
        faults.append(f"  tune.seeds: the last seed would be {last}, and must be below {SEED_END}; lower `seed`")
    if job.tune.search_alg in ("optuna", "bayesian") and find_spec("optuna") is None:
        faults.append(f"  tune.search_alg: {job.tune.search_alg} needs optuna: pip install 'raylora[tune]'")
    if job.tune.scheduler == "pbt":
        if job.ray.num_workers not in ("auto", 1):
            faults.append("  ray.num_workers: pbt hands checkpoints from trial to trial and needs one worker a trial")
        faults += [f"  tune.space.{key}: {reason}" for key, reason in _unfit_for_pbt(space).items()]
    if faults:
        raise ConfigError(f"{len(faults)} fault{'s' * (len(faults) > 1)} in the search space:\n" + "\n".join(faults))
    return space


def seeds(job: Job) -> range:
    """Of the trials of each sample."""
    return range(job.seed, job.seed + job.tune.seeds)


def draw_samples(job: Job, space: Mapping[str, Domain]) -> list[dict[str, Any]]:
    """The samples of a random or grid search, in order: `num_samples` times the grid, the other keys drawn anew.

    A pure function of the space and `seed`; a longer list begins with the shorter one. No two come to the same trial:
    one that did is drawn again, and left out where the space holds no other. A grid alone is run once. With
    `tune.seeds`, all of them with the first seed, which a pack shares, then all with the next.
    """
    import numpy as np

    random = np.random.default_rng(job.seed)
    whole = job.tune.search_alg == "grid"
    grids = {key: d.values for key, d in space.items() if d.kind == "grid" or (whole and d.kind == "choice")}
    samples: list[dict[str, Any]] = []
    drawn: list[dict[str, Any]] = []
    for _ in range(job.tune.num_samples):
        for point in itertools.product(*grids.values()):
            fixed = dict(zip(grids, point, strict=True))
            for _ in range(REDRAWS):
                sample = {key: fixed[key] if key in fixed else d.draw(random) for key, d in space.items()}
                meant = _overrides(job, sample)
                if meant not in drawn:
                    samples.append(sample)
                    drawn.append(meant)
                    break
    if job.tune.seeds == 1:
        return samples
    return [{**sample, "seed": seed} for seed in seeds(job) for sample in samples]


# for trials: a checkpoint at the end of each epoch, and none within
WHOLE_EPOCHS: dict[str, Any] = {"train.save_steps": None, "train.save_minutes": None}


def trial_job(job: Job, sample: Mapping[str, Any]) -> Job:
    """The job of one trial.

    Raises:
        ConfigError: the sample cannot be.
    """
    overrides = _overrides(job, sample)
    if "seed" in sample:
        overrides["data.seed"] = job.split_seed
    score = job.tune.score
    if score:
        overrides["train.metric_for_best_model"] = score
    return job.replace(overrides)


def _overrides(job: Job, sample: Mapping[str, Any]) -> dict[str, Any]:
    """The config keys that a sample sets."""
    overrides = {key: value for key, value in sample.items() if key != RATIO}
    if RATIO in sample:
        rank = int(overrides.get("lora.r", job.lora.r))
        overrides["lora.lora_alpha"] = max(1, round(float(sample[RATIO]) * rank))
    return overrides


def to_plain(value: Any) -> Any:
    """A value as Ray Tune's searchers take it: they know no lists and no mappings, which travel as JSON."""
    return json.dumps(value) if isinstance(value, list | dict) else value


def from_plain(sample: Mapping[str, Any]) -> dict[str, Any]:
    """A sample as it was before `to_plain`."""
    packed = {key: isinstance(value, str) and value.startswith(("[", "{")) for key, value in sample.items()}
    return {key: json.loads(value) if packed[key] else value for key, value in sample.items()}


def _flat(space: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections as dotted keys; a domain is a section's end."""
    flat: dict[str, Any] = {}
    for name, value in space.items():
        nested = isinstance(value, dict) and not _looks_like_domain(value)
        flat |= _flat(value, f"{prefix}{name}.") if nested else {prefix + name: value}
    return flat


def _looks_like_domain(value: Mapping[str, Any]) -> bool:
    return len(value) == 1 and next(iter(value)) in ("choice", "grid", *BOUNDS)


def _domain(key: str, wished: Any) -> Domain:
    if key != RATIO and key not in keys():
        raise ConfigError(did_you_mean(key, Job))
    if key == "seed":
        raise ConfigError("is the sweep's; to train each sample with several seeds, set tune.seeds")
    if key.startswith(OUTSIDE):
        raise ConfigError(
            "is the sweep's, not a trial's: all trials share rows, seed, cluster, floor, trackers and what a base is"
        )
    if not isinstance(wished, dict):
        return Domain("fixed", (wished,))
    ((kind, values),) = wished.items()
    if not isinstance(values, list) or not values:
        raise ConfigError(f"{kind} takes a list, found {values!r}")
    if kind in BOUNDS:
        _check_bounds(kind, values)
    return Domain(kind, tuple(values))


def _check_bounds(kind: str, values: list[Any]) -> None:
    wanted = "[low, high, step]" if BOUNDS[kind] == 3 else "[low, high]"
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    if len(values) != BOUNDS[kind] or not numbers or values[0] >= values[1]:
        raise ConfigError(f"{kind} takes {wanted} with low < high, found {values}")
    if kind == "loguniform" and values[0] <= 0:
        raise ConfigError(f"loguniform needs low > 0, found {values[0]}")
    if kind == "quniform" and values[2] <= 0:
        raise ConfigError(f"quniform needs a step > 0, found {values[2]}")
    if kind == "randint" and not all(isinstance(v, int) for v in values):
        raise ConfigError(f"randint takes whole numbers, found {values}")


def _check_values(job: Job, key: str, domain: Domain) -> None:
    for value in domain.edges():
        if key == RATIO:
            if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
                raise ConfigError(f"a ratio must be a number above 0, found {value!r}")
            continue
        try:
            job.replace({key: value})
        except ConfigError as error:
            fault = str(error).splitlines()[-1].strip().removeprefix(f"{key}: ")
            hint = " (choice or randint give whole numbers)" if domain.kind in BOUNDS and "integer" in fault else ""
            raise ConfigError(f"{fault}{hint}") from None


def _unfit_for_pbt(space: Mapping[str, Domain]) -> dict[str, str]:
    """PBT hands one trial's weights to another config: keys that change the weights' shape cannot be mutated."""
    free = ("train.learning_rate", "train.weight_decay", "train.max_grad_norm", "lora.lora_dropout")
    reason = f"cannot change during a trial, as pbt does; searchable with pbt: {', '.join(free)}"
    return {key: reason for key, d in space.items() if key not in free and d.kind != "fixed"}
