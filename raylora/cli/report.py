"""`raylora report`: one page of a run or a sweep."""

import argparse

from raylora.cli.console import say_as
from raylora.config import Job

NAME, SUMMARY = "report", "write report.html: one page of a run or a sweep"
HELP = """\
Write report.html into the folder of a run or a sweep: how it stands against its floor, scores, curves, what validation
rows taught, data and its warnings, trials, facts and config, on one page that needs no network and no server. Every
finished run and sweep has one; this writes it anew, of one that goes on too.

  raylora report runs/mine
  raylora report s3://bucket/runs/mine

What `raylora evaluate RUN --output RUN/evaluation` found is shown, too: intervals, confusion, calibration, coverage,
slices.

Each number stands in a file beside it: metrics.json, history.jsonl, trials.csv, data_report.json.
"""


def add_arguments(report: argparse.ArgumentParser) -> None:
    report.description = HELP
    report.add_argument("folder", metavar="RUN", help="the folder of a run or a sweep; local, s3:// or gs://")


def run(options: argparse.Namespace) -> None:
    say = say_as(options, Job())
    from raylora.cluster.report import write_report
    from raylora.cluster.storage.filesystem import locate

    say(f"report     {write_report(locate(options.folder)).address}")
