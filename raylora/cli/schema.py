"""`raylora schema`: all that a config can say."""

import argparse
import json

from raylora.config import Job
from raylora.config import file as jobfile

NAME, SUMMARY = "schema", "print the JSON Schema of the config"


def add_arguments(schema: argparse.ArgumentParser) -> None:
    schema.add_argument("--markdown", action="store_true", help="docs/config.md's table of keys, defaults and meanings")


def run(options: argparse.Namespace) -> None:
    print(jobfile.table() if options.markdown else json.dumps(Job.model_json_schema(), indent=2))
