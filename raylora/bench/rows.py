"""The rows that all rivals of a bench share: read from parquet, drawn once, tokenized for raylora."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet

from raylora.cluster.data.split import canonical_order, divide, sample, text_hash
from raylora.config import Job
from raylora.errors import ConfigError

if TYPE_CHECKING:
    from raylora.model.base.find import BaseFolder
    from raylora.model.fit.splits import Splits
    from raylora.model.tokens import TokenTable


def check_files(job: Job, splits: Sequence[str]) -> None:
    """Raises:
    ConfigError: one of `splits` is not one parquet file that is there.
    """
    files = [getattr(job.data, split) for split in splits]
    if not all(isinstance(f, str) and f.endswith(".parquet") and Path(f).is_file() for f in files):
        named = ", ".join(f"`data.{split}`" for split in splits)
        raise ConfigError(f"the bench needs {named}, each one parquet file, e.g. data.train=train.parquet.")


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


def make_splits(job: Job, base: "BaseFolder") -> "Splits":
    """Token tables of a job's parquet files, split and ordered as a job's dataset is."""
    from raylora.model.base.load import load_tokenizer
    from raylora.model.fit.splits import Splits
    from raylora.model.tokens import TokenTable, encode, table_of, tokenizer_spec

    spec = tokenizer_spec(load_tokenizer(base.path), job.data.max_length)
    labels = read_labels(job)

    def read(split: str) -> "tuple[TokenTable, np.ndarray]":
        """All rows in their order, and the texts' hashes."""
        texts, names = read_rows(job, split)
        tokens = table_of(encode(texts, spec))
        pairs: list[Any] = [text if isinstance(text, tuple) else (text, None) for text in texts]
        if unseen := set(names) - set(labels):
            raise ConfigError(f"`data.{split}` holds labels that train never saw: {sorted(unseen)[:5]}.")
        hashes = np.array([text_hash(one, other, job.split_seed) for one, other in pairs], dtype=np.uint64)
        ids = np.array([labels.index(name) for name in names])
        order = canonical_order(hashes, ids)
        return TokenTable(tokens.chunks, order, ids[order], tokens.lengths[order]), hashes[order]

    train, hashes = read("train")
    if job.data.max_samples:
        kept = sample(np.arange(len(train)), train.targets, job.data.max_samples)
        train, hashes = train.take(kept), hashes[kept]
    if job.data.validation:
        validation = read("validation")[0]
    else:
        parts = divide(hashes, train.targets, train.targets, labels, job.data.validation_fraction)
        train, validation = train.take(parts.train), train.take(parts.validation)
    test = read("test")[0] if job.data.test else None
    return Splits(train, validation, test, tuple(labels), spec, {})
