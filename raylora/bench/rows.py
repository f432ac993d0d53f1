"""The rows that all rivals of a bench share: read from parquet, drawn once, tokenized for raylora."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet

from raylora.config import Job
from raylora.errors import ConfigError

if TYPE_CHECKING:
    from raylora.model.base.find import BaseFolder
    from raylora.model.fit.splits import Splits


def check_files(job: Job, splits: Sequence[str]) -> None:
    """Raises:
    ConfigError: one of `splits` is not one parquet file that is there.
    """
    files = [getattr(job.data, split) for split in splits]
    if not all(isinstance(f, str) and f.endswith(".parquet") and Path(f).is_file() for f in files):
        named = ", ".join(f"`data.{split}`" for split in splits)
        raise ConfigError(f"the bench needs {named}, each one parquet file, e.g. data.train=train.parquet.")


def check_cut(job: Job) -> None:
    """Raises:
    ConfigError: long texts are not cut at their end, as the rivals cut them.
    """
    if job.data.truncation != "end":
        raise ConfigError(
            f"the rivals of this bench cut the end of a long text: leave out `data.truncation: {job.data.truncation}`."
        )


def read_rows(job: Job, split: str) -> tuple[list[Any], list[str]]:
    """Texts (or pairs of them) and labels.

    Raises:
        ConfigError: a column is missing, or has no value in some row.
    """
    path, data = getattr(job.data, split), job.data
    table = pyarrow.parquet.read_table(path)
    wanted = [name for name in (data.text_column, data.text_pair_column, data.label_column) if name]
    for name in wanted:
        if name not in table.column_names:
            raise ConfigError(f"{path} has no column '{name}'; it has {', '.join(table.column_names)}.")
        if table[name].null_count:
            raise ConfigError(f"{path} has {table[name].null_count} rows without '{name}'; the bench takes whole rows.")
    texts: list[Any] = table[data.text_column].to_pylist()
    if data.text_pair_column:
        texts = list(zip(texts, table[data.text_pair_column].to_pylist(), strict=True))
    return texts, table[data.label_column].to_pylist()


def read_labels(job: Job) -> list[str]:
    """In id order."""
    return sorted(set(read_rows(job, "train")[1]))


def draw(job: Job, rows: int, validation_rows: int, folder: Path) -> Job:
    """The job on so many random rows of its own, or all where it has fewer; without a test split."""
    files: dict[str, str] = {}
    for split, count in (("train", rows), ("validation", validation_rows)):
        table = pyarrow.parquet.read_table(getattr(job.data, split))
        order = np.random.default_rng(job.seed).permutation(len(table))
        files[f"data.{split}"] = str(folder / f"{split}-{count}.parquet")
        pyarrow.parquet.write_table(table.take(order[:count]), files[f"data.{split}"])
    return job.replace({**files, "data.test": None})


def decided(job: Job) -> Job:
    """The job with its task decided by its files."""
    from raylora.cluster.data.labels import decide_task
    from raylora.cluster.data.sources import list_sources

    return decide_task(job, list_sources(job.data), say=lambda line: None)


def make_splits(job: Job, base: "BaseFolder") -> "Splits":
    """The rows of a job with its task decided, as its dataset has them, without Ray."""
    from raylora.cluster.data.prepare import splits_here
    from raylora.cluster.data.sources import list_sources
    from raylora.model.base.load import load_tokenizer
    from raylora.model.tokens import spec_for

    return splits_here(job, list_sources(job.data), spec_for(load_tokenizer(base.path), job.data))
