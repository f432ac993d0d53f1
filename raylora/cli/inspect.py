"""`raylora inspect`: what data holds, before anything is trained on it."""

import argparse
import json
import os

from raylora.cli.console import say_as
from raylora.cli.job import key_table, saying_renamed
from raylora.config import Job
from raylora.config import file as jobfile
from raylora.errors import ConfigError, DataError

NAME, SUMMARY = "inspect", "say what data holds and what is odd about it"
HELP = """\
Read the data of a config, or of a file, folder, glob or URI whose columns are guessed as by `raylora init`, and say
what it holds: rows, labels, tokens and how many texts data.max_length cuts, scripts, duplicates, equal texts with other
labels, texts of validation or test that stand in train, and rows that cannot be used. What is odd comes with a code
(D001 ...), explained in docs/data.md, which data.mute=[D001] silences, here and in every run.

  raylora inspect mine.csv
  raylora inspect mine.csv data.label_column=stars data.max_length=256
  raylora inspect job.yaml --json

No cluster is started: the files are read in one process. Exit code 2 where a run would end on what the labels lack,
or on settings that they do not bear, and 0 where single rows cannot be used.

keys:
"""


def add_arguments(inspect: argparse.ArgumentParser) -> None:
    inspect.description = HELP + key_table("data")
    inspect.add_argument("words", nargs="*", metavar="DATA | CONFIG.yaml | section.key=value")
    inspect.add_argument("--json", action="store_true", help="one JSON object")


def run(options: argparse.Namespace) -> None:
    job = _read_job(options)
    say = say_as(options, job)
    from raylora.cluster.data.sources import list_sources

    sources = list_sources(job.data)  # before ray and torch are loaded: a wrong path ends at once
    from raylora.cluster.data.inspect import inspect

    found = inspect(job, sources)
    if options.json:
        print(json.dumps(found.as_dict(), indent=2))
    else:
        for line in found.lines():
            say(line)
    if found.refused:
        raise DataError(found.refused)


def _read_job(options: argparse.Namespace) -> Job:
    """Of the config, or guessed for the data.

    Raises:
        ConfigError: as `file.read`; two addresses of data.
    """
    data = [word for word in options.words if not _is_config(word)]
    if len(data) > 1:
        raise ConfigError(f"`raylora inspect` takes one address of data, found {', '.join(data)}. Name their folder.")
    with saying_renamed(options.voice):
        job = jobfile.read([word for word in options.words if _is_config(word)], options.environ)
    if not data:
        return job
    from raylora.cluster.data.guess import guess_job

    return guess_job(data[0], job)


def _is_config(word: str) -> bool:
    """A config file, or the value of a key. An address may hold `=`, too: in its options, or in a folder's name."""
    key, mark, _ = word.partition("=")
    is_setting = bool(mark) and not os.path.exists(word) and not set(key) & set("/?*")
    return is_setting or word.endswith((".yaml", ".yml"))
