"""`raylora predict`: labels of texts, here and now."""

import argparse
import sys

import raylora
from raylora.cli.console import as_json, say_predictions

NAME, SUMMARY = "predict", "label texts with a saved adapter"


def add_arguments(predict: argparse.ArgumentParser) -> None:
    predict.add_argument("--adapter", required=True, metavar="PATH", help="a run or its adapter; local, s3:// or gs://")
    predict.add_argument(
        "--base-model", metavar="ID", help="hub id or folder in place of the one that the adapter names"
    )
    predict.add_argument("--json", action="store_true", help="one JSON object per text, with all scores")
    predict.add_argument("--trust-remote-code", action="store_true", help="run Python code of the base model")
    predict.add_argument("texts", nargs="+", metavar="TEXT")


def run(options: argparse.Namespace) -> None:
    predictions = raylora.load(options.adapter, options.trust_remote_code, options.base_model).predict(options.texts)
    if not options.json:
        say_predictions(print, options.texts, predictions)
        return
    for text, prediction in zip(options.texts, predictions, strict=True):
        record = {"text": text, "label": prediction.label, "score": prediction.score, "scores": prediction.scores}
        print(as_json(record, sys.stdout))
