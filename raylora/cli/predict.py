"""`raylora predict`: labels or numbers of a few texts, here and now, or of a table, on Ray."""

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import raylora
from raylora.cli.console import as_json, say_as, say_predictions
from raylora.cli.job import add_dry_run, key_table, read_job
from raylora.config import file as jobfile
from raylora.config import keys
from raylora.errors import ConfigError
from raylora.records import Say

if TYPE_CHECKING:
    from raylora.cluster.predict.job import Scored

NAME, SUMMARY = "predict", "label texts, or a table of them, with a saved adapter"
HELP = """\
Label texts with a saved adapter: a few, typed here,
  raylora predict --adapter runs/first "a text" "another"
  raylora predict --adapter runs/first --json "a text"
or a table of them, on Ray Data: a file, a folder, s3://, hf:// ..., whatever `data.train` takes, without labels:
  raylora predict predict.data=new.csv predict.adapter=runs/first predict.output=scored
  raylora predict job.yaml predict.data=s3://bucket/texts predict.output=s3://bucket/scored predict.format=jsonl

Of a table every row is scored once and keeps its columns. The same command goes on with what an interrupted one left,
and refuses when data, adapter or settings are others. With RAYLORA_LOG=json it says JSON lines.
How files are read is said by the keys of `data` (text_column, delimiter, on_bad_row), how Ray runs by those of `ray`.

keys:
"""
TEXTS_ONLY = {
    "pairs": "`predict.text_pair_column` names the second column of a table of pairs",
    "json": "`predict.format=jsonl` writes JSON, RAYLORA_LOG=json says it",
    "threshold": "set `predict.threshold`",
    "min_accuracy": "set `predict.min_accuracy`",
    "base_model": "set `model.base_model`",
    "trust_remote_code": "set `model.trust_remote_code`",
}
SHOWN = 10  # labels of a summary
KEY = re.compile(r"(predict|data|ray|model)\.[a-z_.]+=")


def share(word: str) -> float:
    """Raises:
    ArgumentTypeError: not a number from 0 to 1.
    """
    try:
        number = float(word)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"must be a number from 0 to 1, found {word!r}")
    return number


def add_arguments(predict: argparse.ArgumentParser) -> None:
    predict.description = HELP + key_table("predict")
    texts = predict.add_argument_group("of texts that are typed")
    texts.add_argument("--adapter", metavar="PATH", help="a run or its adapter; local, s3:// or gs://")
    texts.add_argument("--base-model", metavar="ID", help="hub id or folder in place of the one that the adapter names")
    texts.add_argument(
        "--threshold",
        type=share,
        metavar="SCORE",
        help="of several labels a text: the score from which on each is said, in place of its own",
    )
    texts.add_argument(
        "--min-accuracy",
        type=share,
        metavar="SHARE",
        help="of one label a text: how often labels are to be right, of what the adapter promises (0.9, 0.95, 0.99); "
        "texts below its score get none",
    )
    texts.add_argument("--pairs", action="store_true", help="take the texts two by two, for an adapter of pairs")
    texts.add_argument("--json", action="store_true", help="one JSON object per text, with all scores")
    texts.add_argument("--trust-remote-code", action="store_true", help="run Python code of the base model")
    add_dry_run(predict)
    predict.add_argument("words", nargs="*", metavar="TEXT | CONFIG.yaml | section.key=value")


def run(options: argparse.Namespace) -> None:
    """Raises:
    ConfigError: it is not clear whether texts or a table are meant, or what is missing.
    """
    if options.adapter is not None:
        check_texts(options)
        predict_texts(options)
        return
    check_table(options)
    predict_table(options)


def check_texts(options: argparse.Namespace) -> None:
    """Raises:
    ConfigError: there is none, or a word is a key of a table's.
    """
    found = [word for word in options.words if KEY.match(word) and word.partition("=")[0] in keys()]
    if found:
        raise ConfigError(
            f"with --adapter every word is a text, and '{found[0]}' is a key. To score a table leave --adapter out and "
            f"set predict.adapter={options.adapter}."
        )
    if options.dry_run:
        raise ConfigError("--dry-run shows the config of a table (predict.data=...); texts have none.")
    if not options.words:
        raise ConfigError('no text is given: raylora predict --adapter PATH "a text".')


def check_table(options: argparse.Namespace) -> None:
    """Raises:
    ConfigError: words are texts without an adapter, or an option is of texts.
    """
    if not any("=" in word or word.endswith((".yaml", ".yml")) for word in options.words):
        what = "Texts need one" if options.words else "Say what to label"
        raise ConfigError(
            f'no adapter is named. {what}: raylora predict --adapter PATH "a text"; or score a table: '
            "raylora predict predict.data=FILE predict.adapter=PATH predict.output=FOLDER."
        )
    for name, instead in TEXTS_ONLY.items():
        if getattr(options, name):
            raise ConfigError(f"--{name.replace('_', '-')} is of texts with --adapter; of a table, {instead}.")


def predict_texts(options: argparse.Namespace) -> None:
    texts: list[str] | list[tuple[str, str]] = two_by_two(options.words) if options.pairs else options.words
    adapter = raylora.load(options.adapter, options.trust_remote_code, options.base_model)
    found = adapter.predict(texts, threshold=options.threshold, min_accuracy=options.min_accuracy)
    if not options.json:
        say_predictions(print, texts, list(map(adapter.task.columns, found)))
        return
    for text, prediction in zip(texts, found, strict=True):
        print(as_json({"text": text, **asdict(prediction)}, sys.stdout))


def two_by_two(texts: Sequence[str]) -> list[tuple[str, str]]:
    """Raises:
    ConfigError: a text is left over.
    """
    if len(texts) % 2:
        raise ConfigError(f"--pairs takes an even number of texts, found {len(texts)}.")
    return list(zip(texts[::2], texts[1::2], strict=True))


def predict_table(options: argparse.Namespace) -> None:
    job = read_job(options)
    if options.dry_run:
        print(jobfile.dump(job), end="")
        return
    from raylora.cluster.predict.inputs import list_texts

    say = say_as(options, job)
    sources = list_texts(job, say)  # before ray and torch are loaded: a wrong path ends at once
    from raylora.cluster.predict.job import score

    say_scored(say, score(job, sources, say))


def say_scored(say: Say, scored: "Scored") -> None:
    """What came of a table: rows, labels of each adapter, where it lies."""
    speed = f", {scored.rows_per_s:,.0f} rows/s" if scored.rows_per_s else ""
    say(f"rows       {scored.rows:,} scored in {scored.parts:,} parts{speed}")
    if scored.bad:
        say(f"warning    {scored.bad:,} rows could not be scored: {scored.bad_rows_uri}")
    for name, counts in scored.counts.items():
        shown = ", ".join(f"{label or 'none'} {count:,}" for label, count in list(counts.items())[:SHOWN])
        more = f" and {len(counts) - SHOWN} more labels" if len(counts) > SHOWN else ""
        if shown:
            say(f"labels     {f'{name}: ' if name else ''}{shown}{more}")
    say(f"output     {scored.output_uri}")
