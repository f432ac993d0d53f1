"""What `train`, `tune`, `serve` and `bench` take: a config and overrides, with what each key means."""

import argparse
import json
import textwrap
import warnings
from collections.abc import Generator
from contextlib import contextmanager

from raylora.cli.console import Voice
from raylora.config import Job, keys
from raylora.config import file as jobfile
from raylora.config.renamed import RenamedKeyWarning


def add_words(command: argparse.ArgumentParser) -> None:
    command.add_argument("words", nargs="*", metavar="CONFIG.yaml | section.key=value")


def add_dry_run(command: argparse.ArgumentParser) -> None:
    command.add_argument("--dry-run", action="store_true", help="print the resolved config and exit")


def read_job(options: argparse.Namespace) -> Job:
    with saying_renamed(options.voice):
        return jobfile.read(options.words, options.environ)


@contextmanager
def saying_renamed(voice: Voice) -> Generator[None]:
    """Say each renamed key of what the user typed or named."""
    with warnings.catch_warnings(record=True) as renamed:
        warnings.simplefilter("always", RenamedKeyWarning)
        yield
    for message in dict.fromkeys(str(warning.message) for warning in renamed):
        voice.fail("warning", message, f"warning: {message}")


def key_table(*sections: str) -> str:
    """Keys of these sections with their defaults and meanings; "" is of those without a section."""
    lines: list[str] = []
    for key, description in keys().items():
        if key.rpartition(".")[0] not in sections:
            continue
        lines.append(f"  {key}={json.dumps(jobfile.value_of(Job(), key))}")
        lines += textwrap.wrap(description, 100, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join(lines)
