"""`raylora bench`: which measurement its words mean."""

import argparse
import re

from raylora.cli.job import add_words, read_job
from raylora.config import Job
from raylora.config import file as jobfile
from raylora.config.space import parse_space
from raylora.errors import ConfigError

NAME, SUMMARY = "bench", "measure raylora against what one would write without it"
TUNE_PARTS = ("pack", "sweep", "start")  # of raylora.bench.tune and .serve, without loading torch
SERVE_PARTS = ("floor", "raylora", "mixed", "pipeline", "recipe", "batch", "memory")


def add_arguments(bench: argparse.ArgumentParser) -> None:
    bench.add_argument("what", choices=["train", "tune", "serve", "predict", "scale", "accuracy"])
    add_words(bench)
    bench.add_argument("--repeats", type=_count, default=3, help="interleaved speed measurements (default 3)")
    bench.add_argument(
        "--speed-rows", type=_count, default=800, help="train, tune: rows of a speed measurement (default 800)"
    )
    bench.add_argument("--rows", type=_count, default=20_000, help="predict: rows of a measurement (default 20000)")
    bench.add_argument(
        "--seeds", type=_whole, default=1, help="train (0 = speed alone), accuracy: of a mean (default 1)"
    )
    bench.add_argument("--top-layers", type=_count, default=2, help="train: layers above the frozen states (default 2)")
    parts = [*TUNE_PARTS, *SERVE_PARTS]
    bench.add_argument("--parts", nargs="+", choices=parts, help=f"tune: {TUNE_PARTS}, serve: {SERVE_PARTS} (all)")
    bench.add_argument("--seconds", type=_count, default=10, help="serve: of each load (default 10)")
    bench.add_argument("--clients", type=_count, nargs="+", default=[1, 8, 32], help="serve: loads (default 1 8 32)")
    bench.add_argument("--threads", type=_count, help="accuracy: of this process (default: all cores)")
    bench.add_argument(
        "--setting",
        action="append",
        metavar="'section.key=value ...'",
        help="accuracy: one to compare, over the job; may be given often, or be `tutorial` (default: it, and the job)",
    )
    bench.add_argument(
        "--samples",
        type=_samples,
        default=0,
        help="accuracy: of tune.space, each from both starts of the head (default 0)",
    )
    bench.add_argument(
        "--alone",
        action="store_true",
        help="accuracy: each setting in a run of its own, its test score that of the adapter as saved, thresholds "
        "included (default: only what cannot be trained beside others, e.g. windows)",
    )
    bench.add_argument("--sweep-rows", type=_count, default=200, help="tune: train rows of a sweep (default 200)")
    bench.add_argument("--adapters", type=_count, default=100_000, help="scale: in one table (default 100000)")
    bench.add_argument("--workers", type=_count, default=64, help="scale: of one sweep (default 64)")


def run(options: argparse.Namespace) -> None:
    """Raises:
    ConfigError: the job has no rows to measure on, or a search space that can never be.
    """
    job = read_job(options)
    from raylora.bench.rows import check_files

    if options.what == "scale":
        from raylora.bench.scale import bench

        bench(options.adapters, options.workers, say=_say)
    elif options.what == "serve":
        from raylora.bench.serve import bench

        bench(job, options.parts or SERVE_PARTS, options.repeats, options.seconds, options.clients, say=_say)
    elif options.what == "predict":
        from raylora.bench.predict import bench

        bench(job, options.repeats, options.rows, say=_say)
    elif options.what == "accuracy":
        check_files(job, ("train", "test"))
        if not options.seeds:
            raise ConfigError("bench accuracy needs at least one of --seeds.")
        from raylora.bench.accuracy import bench

        words = options.setting or ([] if options.samples else ["tutorial", ""])
        settings = {each or "the job itself": _setting(each, job) for each in words}
        bench(job, settings, options.samples, options.seeds, options.threads, _say, alone=options.alone)
    elif options.what == "train":
        check_files(job, ("train", "validation", "test"))
        from raylora.bench.train import bench

        bench(job, options.seeds, options.repeats, options.speed_rows, options.top_layers, say=_say)
    else:
        check_files(job, ("train", "validation"))
        parse_space(job)
        from raylora.bench.tune import bench

        bench(job, options.parts or TUNE_PARTS, options.repeats, options.speed_rows, options.sweep_rows, say=_say)


def _say(line: str) -> None:
    print(line, flush=True)


def _setting(words: str, job: Job) -> Job:
    """A job with a setting's own keys; `tutorial` is what raylora's defaults were taken from."""
    from raylora.bench.accuracy import TUTORIAL

    overrides = TUTORIAL if words == "tutorial" else {}
    for word in filter(None, re.split(r"\s+(?=[\w.]+=)", words.strip())) if words != "tutorial" else []:
        overrides = {**overrides, **jobfile.override(word)}
    return job.replace(overrides)


def _samples(text: str) -> int:
    """Of an option: none, or enough of them to be ranked."""
    if not text.isdecimal() or int(text) == 1:
        raise argparse.ArgumentTypeError(f"must be 0, or at least 2 to be ranked, found '{text}'")
    return int(text)


def _whole(text: str) -> int:
    """Of an option: a whole number."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number, found '{text}'")
    return int(text)


def _count(text: str) -> int:
    """Of an option: a whole number above 0."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number above 0, found '{text}'")
    return int(text)
