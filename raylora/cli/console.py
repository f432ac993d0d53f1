"""What a command says: lines for people, or, with RAYLORA_LOG=json, a JSON object a line for programs."""

import argparse
import json
import re
import shutil
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

from raylora.config import Job
from raylora.errors import ConfigError
from raylora.floor import advice, difference_line, is_below
from raylora.metrics import Scores
from raylora.records import Say
from raylora.tasks import scores_in_words

Level = Literal["info", "warning", "error"]
TRIAL = re.compile(r"trial +(\S+)  ")


class Voice:
    """Args:
    form: of RAYLORA_LOG.

    Raises:
        ConfigError: no such form.
    """

    def __init__(self, form: str) -> None:
        if form not in ("text", "json"):
            raise ConfigError(f"RAYLORA_LOG must be text or json, found '{form}'.")
        self.json = form == "json"
        self.run: str | None = None
        self.drawn = 0  # letters of the live line that stand on the terminal now
        self.lock = threading.Lock()  # what a job says comes from several threads

    def say(self, line: str) -> None:
        self._write(sys.stdout, "warning" if line.startswith("warning ") else "info", line, line)

    def live(self, line: str) -> None:
        """Draw over the line that was drawn last; what is said next takes its place. For terminals."""
        with self.lock:
            width = shutil.get_terminal_size().columns - 1  # a line that is broken in two cannot be drawn over
            shown = line[:width]
            print(f"\r{shown:<{self.drawn}}", end="", flush=True)
            self.drawn = len(shown)

    def fail(self, level: Level, message: str, shown: str) -> None:
        """Say on stderr why the command ends; `shown` is for people."""
        self._write(sys.stderr, level, message, shown)

    def _write(self, file: TextIO, level: Level, message: str, shown: str) -> None:
        with self.lock:
            if self.drawn:
                print(f"\r{'':<{self.drawn}}\r", end="", flush=True)
                self.drawn = 0
            print(as_json(self._record(level, message), file) if self.json else shown, file=file, flush=True)

    def _record(self, level: Level, message: str) -> dict[str, Any]:
        record = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "level": level, "run": self.run}
        trial = TRIAL.match(message)
        if trial:
            record["trial"] = trial[1]
        return {**record, "message": message.strip()}


def as_json(record: dict[str, Any], file: TextIO) -> str:
    """On one line, in letters that the file can hold: the escapes of another encoding would not be JSON's."""
    text = json.dumps(record, ensure_ascii=False)
    try:
        text.encode(getattr(file, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return json.dumps(record)
    return text


@dataclass(frozen=True)
class OnTerminal:
    """A `LiveSay`."""

    voice: Voice

    def __call__(self, line: str) -> None:
        self.voice.say(line)

    def live(self, line: str) -> None:
        self.voice.live(line)


def say_as(options: argparse.Namespace, job: Job) -> Say:
    """What the job says, as RAYLORA_LOG wishes; on a terminal with a live line."""
    voice: Voice = options.voice
    voice.run = job.run_name
    return OnTerminal(voice) if sys.stdout.isatty() and not voice.json else voice.say


def say_scores(say: Say, validation: Scores, test: Scores | None) -> None:
    for split, scores in (("validation", validation), ("test", test)):
        if scores:
            say(f"{split:<11}{scores_in_words(scores)}  ({scores.rows:,} rows)")


def say_floor(say: Say, job: Job, floor: dict[str, Any] | None) -> None:
    """How the adapter stands to the baselines on each split; a warning where it ends below them."""
    if floor is None:
        return
    for split in ("validation", "test"):
        if "difference" in floor.get(split, {}):
            say(f"floor      {split} {difference_line(floor, split)}")
    if is_below(floor):
        say(f"warning    the adapter ends below its floor. {advice(job)}")


def say_predictions(
    say: Say, texts: Sequence[str] | Sequence[tuple[str, str]], columns: Sequence[Sequence[str]]
) -> None:
    """Args:
    columns: of `Task.columns`, one after another of each prediction; as many of all.
    """
    widths = [max(map(len, column)) for column in zip(*columns, strict=True)]
    for text, own in zip(texts, columns, strict=True):
        said = "  ".join(f"{cell:<{width}}" for cell, width in zip(own, widths, strict=True))
        say(f"{said}  {text if isinstance(text, str) else ' | '.join(text)}")
