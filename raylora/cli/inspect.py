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
SHOWN = 10  # suspects on the terminal
HELP = """\
Read the data of a config, or of a file, folder, glob or URI whose columns are guessed as by `raylora init`, and say
what it holds: rows, labels, tokens and how many texts data.max_length cuts, scripts, duplicates, equal texts with other
labels, texts of validation or test that stand in train, and rows that cannot be used. What is odd comes with a code
(D001 ...), explained in docs/data.md, which data.mute=[D001] silences, here and in every run.

  raylora inspect mine.csv
  raylora inspect mine.csv data.label_column=stars data.max_length=256
  raylora inspect job.yaml --json

Of a RUN, that is its folder, it ranks the rows of train by how likely their label is wrong: adapters of the run's own
settings are trained on four fifths of the rows each, and say what they make of the fifth that they did not see
(confident learning); beside these come nearly equal texts with other labels, and texts unlike all others. They are
written to review.csv: look through it, keep the lines of rows that are wrong indeed, and train without them:

  raylora inspect runs/mine
  raylora train runs/mine/config.yaml run_name=mine-2 data.exclude=runs/mine/review.csv

No cluster is started: the files are read in one process. Exit code 2 where a run would end on what the labels lack,
or on settings that they do not bear, and 0 where single rows cannot be used.

keys:
"""


def add_arguments(inspect: argparse.ArgumentParser) -> None:
    inspect.description = HELP + key_table("data")
    inspect.add_argument("words", nargs="*", metavar="DATA | RUN | CONFIG.yaml | section.key=value")
    inspect.add_argument("--folds", type=int, default=5, metavar="N", help="of a RUN: adapters that are trained (5)")
    inspect.add_argument("--most", type=int, default=1000, metavar="ROWS", help="of a RUN: rows of its review (1000)")
    inspect.add_argument("--output", metavar="FILE", help="of a RUN: where the review goes (review.csv in its folder)")
    inspect.add_argument("--json", action="store_true", help="one JSON object")


def run(options: argparse.Namespace) -> None:
    runs = [word for word in options.words if not _is_config(word) and is_run(word)]
    if runs:
        review_run(runs[0], options)
        return
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


def is_run(word: str) -> bool:
    """Whether this is the folder of a run or a sweep."""
    from raylora.cluster.storage.run_folder import CONFIG

    return "://" not in word and os.path.isfile(os.path.join(word, CONFIG))


def review_run(address: str, options: argparse.Namespace) -> None:
    """Raises:
    ConfigError: what cannot be asked of a run; there is a review already.
    """
    if len(options.words) > 1:
        raise ConfigError("`raylora inspect RUN` takes the run's folder alone: its settings are the run's.")
    if options.folds < 2 or options.most < 1:
        raise ConfigError(f"--folds must be 2 or more and --most 1 or more, found {options.folds}, {options.most}.")
    from raylora.cluster.storage.filesystem import locate
    from raylora.cluster.storage.run_folder import BEST_CONFIG, CONFIG, REVIEW

    folder = locate(address)
    target = locate(options.output) if options.output else folder.inside(REVIEW)
    if target.exists():
        raise ConfigError(f"{target.address} is there already, perhaps with your marks: name another by --output.")
    config = next(each for each in (folder.inside(BEST_CONFIG), folder.inside(CONFIG)) if each.exists())
    job = jobfile.read_saved(config.read_text(), config.address)
    say = say_as(options, job)
    from raylora.cluster.data.review import review

    found = review(job, (lambda line: None) if options.json else say, options.folds, options.most)
    target.write_text(found.as_csv())
    if options.json:
        print(json.dumps(found.as_dict(), indent=2))
        return
    for each in found.suspects[:SHOWN]:
        say(f"{each.reason:<15}{each.quality:.2f}  {each.label} -> {each.suggested}  {each.text[:80]!r}  {each.place}")
    counts = ", ".join(f"{count:,} {reason}" for reason, count in found.found.items())
    say(f"suspects   {counts}, of {found.rows:,} rows")
    say(f"review     {target.address}: keep the lines of rows that are wrong, then train with")
    say(f"           data.exclude={target.address}")


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
