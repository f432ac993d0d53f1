"""The command line: `raylora COMMAND ...` and `python jobs/COMMAND.py ...` are one."""

import argparse
import errno
import io
import os
import select
import signal
import sys
import warnings
from collections.abc import Sequence

import raylora
from raylora.cli import (
    bench,
    doctor,
    evaluate,
    export,
    init,
    inspect,
    key,
    predict,
    report,
    runs,
    schema,
    serve,
    train,
    tune,
)
from raylora.cli.console import Voice
from raylora.config.explain import close_to
from raylora.errors import ConfigError, DivergedError, GateError, RayLoraError, TrainingError

COMMANDS = (train, tune, serve, key, predict, evaluate, report, export, runs, init, inspect, schema, doctor, bench)
GO_ON = "the same command with the same run_name goes on from the last checkpoint."
GOING_ON = {
    train.NAME: GO_ON,
    tune.NAME: GO_ON,
    predict.NAME: "the same command scores what is missing of a table.",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; errors go to stderr. Returns the exit code: 0 done, 2 bad config or data, 3 a gate that is not
    met, 1 anything else."""
    for stream in _outputs():
        stream.reconfigure(errors="backslashreplace")  # an ASCII terminal, a name that is not UTF-8
    try:
        try:
            return _run(sys.argv[1:] if arguments is None else arguments)
        finally:
            for stream in _outputs():
                stream.flush()
    except BrokenPipeError:
        if not _drop_closed_outputs():
            raise
        return 128 + signal.SIGPIPE


def _outputs() -> list[io.TextIOWrapper]:
    """Without those that were closed before the start."""
    return [stream for stream in (sys.stdout, sys.stderr) if isinstance(stream, io.TextIOWrapper)]


def _drop_closed_outputs() -> bool:
    """Send nowhere what nobody reads (`raylora runs | head -1`), so that Python's own end says nothing of it."""
    closed = [stream for stream in _outputs() if _is_closed(stream)]
    for stream in closed:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return bool(closed)


def _is_closed(stream: io.TextIOWrapper) -> bool:
    """Whether it leads to a pipe whose reader has gone."""
    poll = select.poll()
    poll.register(stream, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _run(arguments: Sequence[str]) -> int:
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    voice, command = Voice("text"), ""
    try:
        voice = Voice(os.environ.get("RAYLORA_LOG", "text"))
        options = _parse(arguments)
        command = options.command
        options.voice, options.environ = voice, os.environ
        options.run(options)
    except RayLoraError as error:
        voice.fail("error", str(error), f"error: {error}")
        return 2
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        message = f"{error.filename}: {error.strerror}."  # of a path that was typed, wherever it was looked for
        voice.fail("error", message, f"error: {message}")
        return 2
    except GateError as error:
        voice.fail("error", str(error), f"error: {error}")
        return 3
    except TrainingError as error:
        goes_on = command in GOING_ON and not isinstance(error, DivergedError)
        message = f"{error}\n{GO_ON.capitalize()}" if goes_on else str(error)
        voice.fail("error", message, f"error: {message}")
        return 1
    except KeyboardInterrupt:
        _fail_cut(voice, "interrupted", command)
        return 130
    except SystemExit as end:
        if end.code != signal.SIGTERM:
            raise
        # SIGTERM: `ray job stop`, the end of a pod
        _fail_cut(voice, "stopped", command)
        return 128 + signal.SIGTERM
    return 0


def _fail_cut(voice: Voice, how: str, command: str) -> None:
    message = f"{how}: {GOING_ON[command]}" if command in GOING_ON else f"{how}."
    voice.fail("warning", message, f"\n{message}")


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Options may stand between words; argparse takes words only up to the first option.

    Raises:
        ConfigError: no such command.
    """
    known = [command.NAME for command in COMMANDS]
    if arguments and not arguments[0].startswith("-") and arguments[0] not in known:
        meant = close_to(arguments[0].lower(), known)
        raise ConfigError(f"no command '{arguments[0]}'{meant} Known: {', '.join(known)}.")
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
