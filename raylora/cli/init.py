"""`raylora init`: a config to begin with."""

import argparse
import shlex

from raylora.cli.job import saying_renamed
from raylora.config import file as jobfile

NAME, SUMMARY = "init", "write a commented config for a data file or folder"


def add_arguments(init: argparse.ArgumentParser) -> None:
    init.add_argument("data", metavar="DATA", help="csv, tsv, jsonl, json or parquet file, or a folder of these")
    init.add_argument("words", nargs="*", metavar="section.key=value", help="set in the config: data.format=tsv")
    init.add_argument("--output", metavar="FILE", help="default: the data file's name, ending in .yaml, here")


def run(options: argparse.Namespace) -> None:
    from raylora.cluster.data.guess import write_config

    with saying_renamed(options.voice):
        wished = jobfile.read(options.words, options.environ)
    path = write_config(options.data, options.output, wished)
    print(f"wrote {path}. Read it, then: {shlex.join(['raylora', 'train', str(path)])}")
