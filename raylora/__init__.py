"""A labelled text file to an autoscaling endpoint of LoRA adapters, on a laptop or a Ray cluster."""

from collections.abc import Callable, Mapping
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any

from raylora.version import __version__

if TYPE_CHECKING:
    from raylora.model.predictor import Predictor
    from raylora.records import TrainResult

__all__ = ["__version__", "load", "train"]


def load(
    path: str | PathLike[str], trust_remote_code: bool = False, base_model: str | PathLike[str] | None = None
) -> "Predictor":
    """The adapter in a folder, or of a run (`runs/x`), here or on object storage (s3://, gs://), ready to predict.

    Args:
        trust_remote_code: run Python code that comes with the base model.
        base_model: a local folder or hub id in place of the one that the adapter names; its weights must be the same.

    Raises:
        raylora.errors.ModelError: the folder is not an adapter or cannot be read, or its base model cannot be found.
    """
    from raylora.cluster.serve import adapter_folders as folders
    from raylora.cluster.storage.filesystem import is_remote, plain
    from raylora.errors import ModelError
    from raylora.model.predictor import Predictor

    address, named = plain(fspath(path)), None if base_model is None else fspath(base_model)
    try:
        place = folders.adapter_in(address)
        if place is None and not is_remote(address) and not folders.is_run(address):
            place = folders.AdapterLocation(address, "")  # the reader says what is missing
        with folders.local(folders.there(address, place)) as folder:
            return Predictor(folder, trust_remote_code, named)
    except OSError as error:
        raise ModelError(f"adapter {address} cannot be read: {error}") from None


def train(
    data: Any = None,
    settings: Mapping[str, Any] | None = None,
    *,
    validation: Any = None,
    test: Any = None,
    config: str | PathLike[str] | None = None,
    say: Callable[[str], None] | None = None,
) -> "TrainResult":
    """Fine-tune on labelled texts, as `raylora train` does, from what a program holds.

        frame = pandas.read_csv("reviews.csv")
        result = raylora.train(frame, {"data.text_column": "review", "data.label_column": "stars"}, say=print)
        raylora.load(result.adapter_uri).predict(["Arrived a day early."])

        raylora.train([{"text": "Broken.", "label": "bad"}, {"text": "Lovely.", "label": "good"}, ...])
        raylora.train(polars.read_parquet("a.parquet"), validation=pyarrow.parquet.read_table("b.parquet"))
        raylora.train(datasets.load_dataset("csv", data_files={"train": "a.csv", "test": "b.csv"}))  # splits by key
        raylora.train(ray.data.read_parquet("s3://bucket/reviews"), {"ray.num_workers": 4})
        raylora.train("reviews.csv.gz", config="mine.yaml", settings={"run_name": "second"})

    Rows are written to the run's folder (`data/train-....jsonl`), which its config.yaml then names, and are checked as
    those of a file are: a bad one is named by its number, from 1.

    Args:
        data: rows of pandas, pyarrow, polars, `datasets` (streams too) or `ray.data`, a list of dicts, a dict of
            columns; or what `data.train` takes: a path, a folder, a glob, an address. None: what the config says, or
            the bundled demo.
        settings: keys of the config with their values, as `{"lora.r": 16}`; they win over `config`.
        validation, test: like `data`, for `data.validation` and `data.test`; a `datasets.DatasetDict` as `data` holds
            them itself, and one that is passed here gives its own split.
        config: a YAML file, as `raylora init` writes it.
        say: takes each line of progress; `print` shows them.

    Raises:
        raylora.errors.RayLoraError: the config, the data or the base model cannot be used.
        raylora.errors.TrainingError: the run failed; the same call goes on from its last checkpoint, given a run_name.
    """
    from raylora.cluster.train.in_python import train_on

    path = None if config is None else fspath(config)
    rows = {"train": data, "validation": validation, "test": test}
    return train_on(rows, dict(settings or {}), path, say or (lambda line: None))
