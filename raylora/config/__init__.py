"""What a job is: one frozen tree of settings, checked before anything heavy is loaded.

Key names are those of `transformers.TrainingArguments`, `peft.LoraConfig` and `ray.train`, verbatim.
"""

from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, model_validator

from raylora.config.explain import explain, leaves
from raylora.config.learning import DataSection, LoraSection, ModelSection, RaySection, TrainSection
from raylora.config.renamed import new_key, rename_keys
from raylora.config.secrets import ADVICE, find_secret
from raylora.config.section import Section
from raylora.config.serve import ServeSection
from raylora.config.tune import SIZES, TuneSection
from raylora.errors import ConfigError

__all__ = [
    "SIZES",
    "DataSection",
    "Job",
    "LoraSection",
    "ModelSection",
    "RaySection",
    "ServeSection",
    "TrainSection",
    "TuneSection",
    "keys",
    "parse",
    "parse_saved",
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
    seed: Annotated[int, Field(ge=0, lt=2**32)] = Field(
        default=42, description="of the split, the new weights and the order of rows"
    )
    data: DataSection = DataSection()
    model: ModelSection = ModelSection()
    lora: LoraSection = LoraSection()
    train: TrainSection = TrainSection()
    ray: RaySection = RaySection()
    tune: TuneSection = TuneSection()
    serve: ServeSection = ServeSection()

    @model_validator(mode="after")
    def holds_no_secret(self) -> Self:
        if found := find_secret(self.model_dump()):
            raise ValueError(f"`{found[0]}` holds {found[1]}. {ADVICE}")
        return self

    @model_validator(mode="before")
    @classmethod
    def takes_renamed_keys(cls, tree: Any) -> Any:
        return rename_keys(tree)

    def replace(self, overrides: dict[str, Any]) -> "Job":
        """The job with dotted keys set, e.g. `{"lora.r": 16}`, checked as a whole.

        Raises:
            ConfigError: a key is unknown or a value cannot be; every fault is named at once.
        """
        tree = self.model_dump()
        for key, value in overrides.items():
            _set(tree, new_key(key), value)
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


def _set(tree: dict[str, Any], key: str, value: Any) -> None:
    head, inside, rest = key.partition("tune.space.")
    *path, last = ["tune", "space", rest] if inside and not head else key.split(".")
    for depth, name in enumerate(path, 1):
        inner = tree.setdefault(name, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"`{key}`: `{'.'.join(path[:depth])}` is a value, not a section.")
        tree = inner
    tree[last] = value
