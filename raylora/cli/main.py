"""The command line: `raylora COMMAND ...` and `python jobs/COMMAND.py ...` are one."""

import argparse
import os
import signal
import warnings
from collections.abc import Sequence

import raylora
from raylora.cli import bench, init, key, predict, runs, schema, serve, train, tune
from raylora.cli.console import Voice
from raylora.errors import DivergedError, RayLoraError, TrainingError

COMMANDS = (train, tune, serve, key, predict, runs, init, schema, bench)
GO_ON = "the same command with the same run_name goes on from the last checkpoint."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; errors go to stderr. Returns the exit code: 0 done, 2 bad config or data, 1 anything else."""
    options = _parse(arguments)
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    voice = Voice("text")
    try:
        voice = options.voice = Voice(os.environ.get("RAYLORA_LOG", "text"))
        options.environ = os.environ
        options.run(options)
    except RayLoraError as error:
        voice.fail("error", str(error), f"error: {error}")
        return 2
    except TrainingError as error:
        message = str(error) if isinstance(error, DivergedError) else f"{error}\n{GO_ON.capitalize()}"
        voice.fail("error", message, f"error: {message}")
        return 1
    except KeyboardInterrupt:
        voice.fail("warning", f"interrupted: {GO_ON}", f"\ninterrupted: {GO_ON}")
        return 130
    except SystemExit as end:
        if end.code != signal.SIGTERM:
            raise
        # SIGTERM: `ray job stop`, the end of a pod
        voice.fail("warning", f"stopped: {GO_ON}", f"\nstopped: {GO_ON}")
        return 128 + signal.SIGTERM
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Options may stand between words; argparse takes words only up to the first option."""
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    taken: list[str] | None = getattr(options, "words", getattr(options, "texts", None))
    if rest and (taken is None or any(word.startswith("-") for word in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest and taken is not None:
        taken += rest
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="raylora", description=raylora.__doc__)
    parser.add_argument("--version", action="version", version=f"raylora {raylora.__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in COMMANDS:
        added = commands.add_parser(
            command.NAME,
            help=command.SUMMARY,
            description=command.SUMMARY,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        added.set_defaults(run=command.run, command=command.NAME)
        command.add_arguments(added)
    return parser
