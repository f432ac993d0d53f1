"""Which table is scored, by which adapters, and what is written of it."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from raylora.config.section import Count, Section
from raylora.config.serve import AdapterName

Share = Annotated[float, Field(ge=0, le=1)]


class PredictSection(Section):
    data: str | list[str] | None = Field(
        default=None, description="texts to score, like `data.train`; labels are not needed, and not looked at"
    )
    output: str | None = Field(
        default=None, description="folder of the scored parts, new or begun by the same command; local, s3:// or gs://"
    )
    adapter: str | None = Field(default=None, description="path of an adapter folder, or of a run that holds one")
    adapters: dict[AdapterName, str] = Field(
        default={}, description="name: path; all score each row in one pass, and `NAME_` begins the columns of each"
    )
    text_column: str | None = Field(
        default=None,
        description="null = data.text_column; where that is at its default, the one that the adapter was trained on",
    )
    text_pair_column: str | None = Field(
        default=None, description="null = data.text_pair_column, or the one that the adapter was trained on"
    )
    columns: list[str] | None = Field(
        default=None, description="columns of the data that the output keeps, with their types in parquet; null = all"
    )
    prefix: str = Field(
        default="", description="what the names of new columns begin with, where `label` and `score` are taken"
    )
    format: Literal["parquet", "jsonl", "csv"] = Field(default="parquet", description="of the parts")
    all_scores: bool = Field(default=False, description="true = also a column `score_LABEL` for each label")
    threshold: Share | None = Field(
        default=None, description="of several labels a text: the score from which on each is said; null = its own"
    )
    min_accuracy: Share | None = Field(
        default=None,
        description="of one label a text: how often labels are to be right, of what the adapter promises (0.9, 0.95, "
        "0.99); rows below its score get null",
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", description="of base and adapters; auto = bfloat16 on GPUs that have it and on CPUs with AMX"
    )
    batch_size: Count = Field(default=64, description="rows that the model runs together, at most")
    part_bytes: Count | None = Field(
        default=None, description="of a large file, what is scored and written at once; null = by the size of all data"
    )
    concurrency: Literal["auto"] | Count | Annotated[list[Count], Field(min_length=2, max_length=2)] = Field(
        default="auto",
        description="scoring processes, each with `ray.resources_per_worker`; [min, max] = Ray Data's pool grows and "
        "shrinks; auto = from one up to what fits",
    )

    @model_validator(mode="after")
    def adapters_are_named_once(self) -> Self:
        if self.adapter is not None and self.adapters:
            raise ValueError(f"`adapter` and `adapters` name adapters: leave one out, found {self.adapter} and others")
        return self

    @model_validator(mode="after")
    def columns_differ(self) -> Self:
        if self.columns is not None and len(set(self.columns)) != len(self.columns):
            raise ValueError(f"`columns` must name each column once, found {self.columns}")
        return self

    @model_validator(mode="after")
    def pool_grows(self) -> Self:
        if isinstance(self.concurrency, list) and self.concurrency[0] > self.concurrency[1]:
            raise ValueError(f"`concurrency` must be [min, max], found {self.concurrency}")
        return self
