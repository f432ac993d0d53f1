"""A line at the bottom of a terminal that is drawn anew; none where errors do not go to a terminal."""

import shutil
import sys
from types import TracebackType
from typing import Self

from raylora.cli.console import Voice


class LiveLine:
    """`with LiveLine(voice) as live`: drawn on stderr, and wiped off at the end."""

    def __init__(self, voice: Voice) -> None:
        self.is_shown = not voice.json and sys.stderr is not None and sys.stderr.isatty()
        self._drawn = 0

    def __enter__(self) -> Self:
        return self

    def draw(self, line: str) -> None:
        """In place of the last one."""
        line = line[: shutil.get_terminal_size().columns - 1]
        print(f"\r{line:<{self._drawn}}", end="", file=sys.stderr, flush=True)
        self._drawn = len(line)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._drawn:
            print(f"\r{'':<{self._drawn}}\r", end="", file=sys.stderr, flush=True)
