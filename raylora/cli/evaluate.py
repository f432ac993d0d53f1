"""`raylora evaluate`: how good adapters are on labelled rows."""

import argparse
import json
from typing import Any

from raylora.cli.console import Voice
from raylora.cli.job import saying_renamed
from raylora.config import file as jobfile
from raylora.evaluation.gates import Gate, check_gates, read_gate
from raylora.evaluation.lines import lines_of
from raylora.records import Say

NAME, SUMMARY = "evaluate", "say how good adapters are on labelled rows, and compare them"
HELP = """\
All metrics with 95 % intervals, scores by label, what is confused, calibration, accuracy by coverage, and slices that
are worse than the rest. Without --data: the test split of the adapter's run, or its validation split, exactly the rows
that the run held out. Two or more adapters are compared on the same rows, by the first one's columns.

  raylora evaluate runs/first
  raylora evaluate runs/first runs/second --data new.csv --slice-by source --robustness
  raylora evaluate runs/first --data new.csv data.label_column=stars --fail-under f1=0.9 --output evaluated

Keys of `data` say how rows are read where that differs from the run: data.text_column, data.label_column, ...
docs/evaluate.md explains each number. Exit codes: 0 done, 2 adapters or rows that cannot be, 3 a gate is not met.
"""


def add_arguments(evaluate: argparse.ArgumentParser) -> None:
    evaluate.description = HELP
    evaluate.add_argument("words", nargs="+", metavar="ADAPTER | section.key=value")
    evaluate.add_argument(
        "--data", action="append", metavar="DATA", help="labelled rows, in any form of data.test; may be given again"
    )
    evaluate.add_argument(
        "--slice-by", action="append", default=[], metavar="COLUMN", help="scores by its values; may be given again"
    )
    evaluate.add_argument(
        "--robustness",
        action="store_true",
        help="answers to texts with typos, in other case, without punctuation, with other spaces: six times the work",
    )
    evaluate.add_argument(
        "--fail-under",
        action="append",
        default=[],
        metavar="METRIC=NUMBER",
        help="exit code 3 where an adapter is below; may be given again",
    )
    evaluate.add_argument(
        "--fail-over", action="append", default=[], metavar="METRIC=NUMBER", help="the same, of what is better lower"
    )
    evaluate.add_argument(
        "--output", metavar="FOLDER", help="write report.html, evaluation.json, predictions.parquet and tables"
    )
    evaluate.add_argument("--json", action="store_true", help="one JSON object; progress goes to stderr")
    evaluate.add_argument(
        "--base-model", metavar="ID", help="hub id or folder in place of the one that the adapters name"
    )
    evaluate.add_argument("--trust-remote-code", action="store_true", help="run Python code of the base model")


def run(options: argparse.Namespace) -> None:
    gates = _gates(options)  # before torch is loaded: a wrong word ends at once
    adapters, settings = _words(options)
    from raylora.cluster.evaluate.job import Wanted, evaluate
    from raylora.cluster.evaluate.output import open_output, write

    folder = open_output(options.output) if options.output else None
    wanted = Wanted(
        adapters,
        options.data,
        settings,
        options.slice_by,
        options.robustness,
        gates,
        options.base_model,
        options.trust_remote_code,
    )
    say = _to_stderr(options.voice) if options.json else options.voice.say
    found = evaluate(wanted, say)
    if folder:
        write(found, folder)
    if options.json:
        print(json.dumps(found.record.as_dict(), indent=2, allow_nan=False))
    for line in [] if options.json else lines_of(found.record):
        say(line)
    if folder:
        say(f"written    {folder.address}")
    check_gates(gates, found.record.adapters)


def _to_stderr(voice: Voice) -> Say:
    return lambda line: voice.fail("info", line, line)


def _gates(options: argparse.Namespace) -> list[Gate]:
    under = [read_gate(word, "under") for word in options.fail_under]
    return [*under, *(read_gate(word, "over") for word in options.fail_over)]


def _words(options: argparse.Namespace) -> tuple[list[str], dict[str, Any]]:
    """Adapters, and keys with their values; a path may hold `=`, too."""
    settings: dict[str, Any] = {}
    adapters: list[str] = []
    with saying_renamed(options.voice):
        for word in options.words:
            if "=" in word and not set(word.partition("=")[0]) & set("/?"):
                settings |= jobfile.override(word)
            else:
                adapters.append(word)
    return adapters, settings
