"""`raylora predict`: labels or numbers of texts, here and now."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict

import raylora
from raylora.cli.console import as_json, say_predictions
from raylora.errors import ConfigError

NAME, SUMMARY = "predict", "label texts with a saved adapter"


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
    predict.add_argument("--adapter", required=True, metavar="PATH", help="a run or its adapter; local, s3:// or gs://")
    predict.add_argument(
        "--base-model", metavar="ID", help="hub id or folder in place of the one that the adapter names"
    )
    predict.add_argument(
        "--threshold",
        type=share,
        metavar="SCORE",
        help="of several labels a text: the score from which on each is said, in place of its own",
    )
    predict.add_argument(
        "--min-accuracy",
        type=share,
        metavar="SHARE",
        help="of one label a text: how often labels are to be right, of what the adapter promises (0.9, 0.95, 0.99); "
        "texts below its score get none",
    )
    predict.add_argument("--pairs", action="store_true", help="take the texts two by two, for an adapter of pairs")
    predict.add_argument("--json", action="store_true", help="one JSON object per text, with all scores")
    predict.add_argument("--trust-remote-code", action="store_true", help="run Python code of the base model")
    predict.add_argument("texts", nargs="+", metavar="TEXT")


def run(options: argparse.Namespace) -> None:
    texts: list[str] | list[tuple[str, str]] = two_by_two(options.texts) if options.pairs else options.texts
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
