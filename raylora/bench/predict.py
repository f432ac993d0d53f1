"""`bench predict`: rows/s of a scoring job, beside the predictor in one process and `transformers.pipeline`."""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import raylora
from raylora.bench.inprocess import cores, load, tokenizer_of
from raylora.bench.processes import answer, run_alone
from raylora.bench.verdict import cpu, target
from raylora.cluster.data.sources import read_rows
from raylora.cluster.predict.adapters import take, texts_of, unpacked
from raylora.cluster.predict.inputs import list_texts
from raylora.config import Job
from raylora.config import file as jobfile
from raylora.errors import ConfigError, EmptyFileError
from raylora.records import Say

RIVALS = ("job", "predictor", "pipeline")
PIPELINE_BATCH = 32


@dataclass(frozen=True)
class Rate:
    """What one rival took for the rows, on all cores; `whole_s` with its start."""

    rows: int
    seconds: float
    whole_s: float

    @property
    def rows_per_s(self) -> float:
        return self.rows / self.seconds


def bench(job: Job, repeats: int, rows: int, say: Say) -> None:
    """Print rows/s of each, and how they compare with the targets.

    Each runs in processes of its own, all in turn, `repeats` times; medians, ratios within a turn.

    Args:
        job: `predict.data` are the texts, single ones, `predict.adapter` scores them.
        rows: of a measurement, the first of the data.

    Raises:
        ConfigError: there is no adapter, or no text.
    """
    say(f"cpu        {cpu()}, {cores()} cores")
    with tempfile.TemporaryDirectory() as scratch, unpacked(take(job)) as (folder, *_):
        path = Path(scratch) / "rows.jsonl"
        say(f"rows       {write_texts(job, rows, path):,}")
        turns = [_turn(job, folder, path, Path(scratch) / str(turn)) for turn in range(repeats)]
    for rival in RIVALS:
        rate = statistics.median(turn[rival].rows_per_s for turn in turns)
        start = statistics.median(turn[rival].whole_s - turn[rival].seconds for turn in turns)
        say(f"{rival:<11}{rate:,.0f} rows/s; start {start:.1f} s")
    for rival, least in (("predictor", 0.9), ("pipeline", 5.0 if job.predict.dtype == "bfloat16" else 2.0)):
        ratio = statistics.median(turn["job"].rows_per_s / turn[rival].rows_per_s for turn in turns)
        target(say, f"job against {rival}", ratio, ">=", least)


def write_texts(job: Job, rows: int, path: Path) -> int:
    """The first texts of `predict.data` that can be scored, as a jsonl file; how many there are.

    Raises:
        ConfigError: there is none.
    """
    data = texts_of(take(job), job)
    found: list[str] = []
    for source in list_texts(job, lambda line: None):
        with suppress(EmptyFileError):
            good = (row.text for row in read_rows(source, data) if row.fault is None)
            found += islice(good, rows - len(found))
    if not found:
        raise ConfigError("`predict.data` holds no text to measure with.")
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in found), encoding="utf-8")
    return len(found)


def _turn(job: Job, folder: Path, path: Path, output: Path) -> dict[str, Rate]:
    own = {"data": str(path), "adapter": str(folder), "output": str(output), "text_column": "text"}
    words = job.replace({"predict.adapters": {}, **{f"predict.{key}": value for key, value in own.items()}})
    config = output.with_suffix(".yaml")
    config.write_text(jobfile.dump(words), encoding="utf-8")
    return {rival: Rate(**run_alone(__name__, rival, str(config))) for rival in RIVALS}


def measure(rival: str, job: Job) -> Rate:
    """One rival, in this process."""
    path, folder = Path(str(job.predict.data)), str(job.predict.adapter)
    texts = [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]
    start = time.perf_counter()
    seconds = {"job": _job, "predictor": _predictor, "pipeline": _pipeline}[rival](job, folder, texts)
    return Rate(len(texts), seconds, time.perf_counter() - start)


def _job(job: Job, folder: str, texts: Sequence[str]) -> float:
    """From the pool's start on, reading and writing included."""
    from raylora.cluster.predict.job import score

    return score(job, list_texts(job, lambda line: None), lambda line: None).seconds


def _predictor(job: Job, folder: str, texts: Sequence[str]) -> float:
    import torch

    torch.set_num_threads(cores())
    predictor = raylora.load(folder)
    predictor.predict(texts[:64])
    start = time.perf_counter()
    predictor.predict(texts)
    return time.perf_counter() - start


def _pipeline(job: Job, folder: str, texts: Sequence[str]) -> float:
    """As its documentation has it: rows in their order, 32 at once, padded to the longest of them."""
    import torch
    from transformers import pipeline

    torch.set_num_threads(cores())
    loaded, max_length = load(folder)
    make: Any = pipeline
    classify = make("text-classification", model=loaded.merge_and_unload(), tokenizer=tokenizer_of(folder))
    options: dict[str, Any] = {"batch_size": PIPELINE_BATCH, "truncation": True, "max_length": max_length}
    classify(list(texts[:64]), **options)
    start = time.perf_counter()
    classify(list(texts), **options)
    return time.perf_counter() - start


if __name__ == "__main__":
    answer(measure(sys.argv[1], jobfile.read_saved(Path(sys.argv[2]).read_text(encoding="utf-8"), sys.argv[2])))
