"""A labelled text file to an autoscaling endpoint of LoRA adapters, on a laptop or a Ray cluster."""

from collections.abc import Callable, Mapping, Sequence
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, overload

from raylora.version import __version__

if TYPE_CHECKING:
    from raylora.evaluation.record import Evaluation, Evaluations
    from raylora.model.predictor import Predictor
    from raylora.records import TrainResult

__all__ = ["__version__", "evaluate", "load", "train"]


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
    from raylora.cluster.serve.adapter_folders import opened
    from raylora.model.predictor import Predictor

    with opened(fspath(path)) as folder:
        return Predictor(folder, trust_remote_code, None if base_model is None else fspath(base_model))


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


@overload
def evaluate(
    adapter: str | PathLike[str],
    data: Any = None,
    settings: Mapping[str, Any] | None = None,
    *,
    slice_by: Sequence[str] = (),
    robustness: bool = False,
    base_model: str | PathLike[str] | None = None,
    trust_remote_code: bool = False,
    say: Callable[[str], None] | None = None,
) -> "Evaluation": ...
@overload
def evaluate(
    adapter: list[Any] | tuple[Any, ...],
    data: Any = None,
    settings: Mapping[str, Any] | None = None,
    *,
    slice_by: Sequence[str] = (),
    robustness: bool = False,
    base_model: str | PathLike[str] | None = None,
    trust_remote_code: bool = False,
    say: Callable[[str], None] | None = None,
) -> "Evaluations": ...
def evaluate(
    adapter: str | PathLike[str] | list[Any] | tuple[Any, ...],
    data: Any = None,
    settings: Mapping[str, Any] | None = None,
    *,
    slice_by: Sequence[str] = (),
    robustness: bool = False,
    base_model: str | PathLike[str] | None = None,
    trust_remote_code: bool = False,
    say: Callable[[str], None] | None = None,
) -> "Evaluation | Evaluations":
    """How good an adapter is on labelled rows, as `raylora evaluate` says it.

        found = raylora.evaluate("runs/first")                      # on the rows that the run held out
        found.metrics["accuracy"]                                   # Estimate(value=0.91, low=0.89, high=0.93)
        [each for each in found.slices if each.worse]
        raylora.evaluate("runs/first", "new.csv", {"data.label_column": "stars"}, slice_by=["source"])
        raylora.evaluate(["runs/first", "runs/second"], frame).comparisons[0].words

    Args:
        adapter: a run or its adapter, or a list of them, which are compared on the same rows.
        data: labelled rows as `train` takes them, or addresses of such; None: the test split of the (first) adapter's
            run, else its validation split.
        settings: keys of `data` that say how rows are read where that differs from the run.
        slice_by: columns; scores are told by their values.
        robustness: whether texts are altered, too: six times the work.
        base_model, trust_remote_code: of `load`.
        say: takes each line of progress.

    Returns:
        The record of one adapter; of a list, `Evaluations`: each one's record, and `comparisons`. `as_dict()` of both
        is JSON.

    Raises:
        raylora.errors.RayLoraError: an adapter cannot be read, or the rows cannot be used.
    """
    from raylora.cluster.evaluate.job import Wanted, evaluate

    is_one = isinstance(adapter, str | PathLike)
    wanted = Wanted(
        [fspath(each) for each in ([adapter] if is_one else adapter)],
        data,
        settings or {},
        slice_by,
        robustness,
        base_model=None if base_model is None else fspath(base_model),
        trust_remote_code=trust_remote_code,
    )
    found = evaluate(wanted, say or (lambda line: None)).record
    return found.adapters[0] if is_one else found
