"""What a job is: one frozen tree of settings, checked before anything heavy is loaded.

Key names are those of `transformers.TrainingArguments`, `peft.LoraConfig` and `ray.train`, verbatim.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, model_validator

from raylora.config.data import DataSection
from raylora.config.explain import explain, leaves, not_unicode
from raylora.config.learning import LoraSection, ModelSection, RaySection, TrainSection
from raylora.config.predict import PredictSection
from raylora.config.renamed import new_key, rename_keys
from raylora.config.secrets import ADVICE, find_secret
from raylora.config.section import Section, Seed
from raylora.config.serve import ServeSection
from raylora.config.tune import SIZES, TuneSection
from raylora.config.typed import place_of
from raylora.errors import ConfigError
from raylora.metrics import greater_is_better
from raylora.tasks import Task, task_of

__all__ = [
    "SIZES",
    "DataSection",
    "Job",
    "LoraSection",
    "ModelSection",
    "PredictSection",
    "RaySection",
    "ServeSection",
    "TrainSection",
    "TuneSection",
    "keys",
    "parse",
    "parse_saved",
    "set_keys",
]


class Job(Section):
    """One job, whole. Every field has a default: an empty file is a job on the demo data."""

    run_name: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="null = the command, the UTC time and six letters; the same name resumes",
    )
    storage_path: Annotated[str, Field(min_length=1)] = Field(
        default="runs", description="folder, NFS mount, s3:// or gs://; all nodes must see it"
    )
    seed: Seed = Field(
        default=42, description="of the split (but see data.seed), the new weights and the order of rows"
    )
    data: DataSection = DataSection()
    model: ModelSection = ModelSection()
    lora: LoraSection = LoraSection()
    train: TrainSection = TrainSection()
    ray: RaySection = RaySection()
    tune: TuneSection = TuneSection()
    predict: PredictSection = PredictSection()
    serve: ServeSection = ServeSection()

    @model_validator(mode="after")
    def holds_no_secret(self) -> Self:
        if found := find_secret(self.model_dump()):
            raise ValueError(f"`{found[0]}` holds {found[1]}. {ADVICE}")
        return self

    @model_validator(mode="after")
    def is_unicode(self) -> Self:
        """It is kept in files of UTF-8; a name of other bytes would only fail there, after the training."""
        if found := not_unicode(self.model_dump()):
            raise ValueError(f"`{found[0]}` must be UTF-8, found {found[1]!r}. Rename it.")
        return self

    @model_validator(mode="before")
    @classmethod
    def takes_renamed_keys(cls, tree: Any) -> Any:
        return rename_keys(tree)

    @model_validator(mode="after")
    def metrics_are_of_the_task(self) -> Self:
        if self.data.problem_type is None:
            return self
        known, losses = self.task.metrics, self.task.losses
        named = {"train.metric_for_best_model": self.train.metric_for_best_model, "tune.metric": self.tune.score}
        for key, metric in named.items():
            if metric is not None and metric not in known:
                raise ValueError(
                    f"`{key}` must be a metric of {self.data.problem_type} ({', '.join(known)}), found {metric}"
                )
        unfit = [
            key
            for key, is_set in (
                ("train.class_weights", self.train.class_weights is not None),
                ("train.label_smoothing_factor", self.train.label_smoothing_factor > 0),
            )
            if is_set and not self.task.has_classes
        ]
        if unfit:
            raise ValueError(f"`{unfit[0]}` is of labels, and {self.data.problem_type} has none. Leave it out")
        if self.train.loss is not None and self.train.loss not in losses:
            raise ValueError(
                f"`train.loss` must be one of {', '.join(losses)} for {self.data.problem_type}, found {self.train.loss}"
            )
        return self

    @model_validator(mode="after")
    def mode_is_the_metrics_own(self) -> Self:
        """`tune.metric` itself is looked at there."""
        mode = "max" if greater_is_better(self.metric) else "min"
        if self.tune.mode and self.tune.metric is None and self.tune.mode != mode:
            raise ValueError(
                f"`tune.mode` must be {mode} for {self.metric} (train.metric_for_best_model), found {self.tune.mode}"
            )
        return self

    @property
    def task(self) -> Task:
        """That of `data.problem_type`; it does not know the labels yet."""
        return task_of(self.data.problem_type)

    @property
    def metric(self) -> str:
        """The metric that decides which epoch's adapter is kept."""
        return self.train.metric_for_best_model or self.task.metrics[0]

    @property
    def split_seed(self) -> int:
        """The seed of the split: trials of a sweep that differ by their seed still learn from the same rows."""
        return self.seed if self.data.seed is None else self.data.seed

    def replace(self, overrides: dict[str, Any]) -> "Job":
        """The job with dotted keys set, e.g. `{"lora.r": 16}`, checked as a whole.

        Raises:
            ConfigError: a key is unknown or a value cannot be; every fault is named at once.
        """
        tree = self.model_dump()
        set_keys(tree, overrides)
        return parse(tree)


def parse(tree: dict[str, Any]) -> Job:
    """A job from nested keys.

    Raises:
        ConfigError: names every fault with its dotted path, the value found, and a close known key.
    """
    try:
        return Job.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(explain(error, Job)) from None


def parse_saved(tree: Any) -> Job:
    """A job that raylora itself wrote into a folder: its old keys are nobody's to change, and no warning says them.

    Raises:
        ConfigError: as `parse`.
    """
    return parse(rename_keys(tree, warn=False))


def keys() -> dict[str, str]:
    """Every dotted key with its description, sections left out."""
    return leaves(Job)


def set_keys(tree: dict[str, Any], overrides: Mapping[str, Any]) -> None:
    """Set dotted keys of a job's tree.

    Raises:
        ConfigError: a key leads into a value.
    """
    for key, value in overrides.items():
        inside = tree
        *path, last = place_of(Job, new_key(key)).path
        for depth, name in enumerate(path, 1):
            inside = inside.setdefault(name, {})
            if not isinstance(inside, dict):
                raise ConfigError(f"`{key}`: `{'.'.join(path[:depth])}` is a value, not a section.")
        inside[last] = value
