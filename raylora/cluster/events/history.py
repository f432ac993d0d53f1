"""history.jsonl: an event a line, in the order they came."""

import json
from collections.abc import Callable, Iterable
from time import monotonic
from typing import Any, Self

from raylora.cluster.storage.run_folder import HISTORY, RunFolder
from raylora.errors import ConfigError

Event = dict[str, Any]
# Where the file can only be written whole, and one of a long sweep has tens of megabytes:
SELDOM_S = 30  # between two times, for losses alone
BYTES_PER_S = 1_000_000  # so much of it a second, at most, for all else


def earlier_events(folder: RunFolder, keep: Callable[[Event], bool] = lambda event: True) -> list[Event]:
    """What an interrupted run goes on from; the file holds that and nothing else from now on."""
    text = _text(folder)
    events = [event for event in parse_history(text) if keep(event)]
    kept = _lines(events)
    if kept != text:  # something is dropped, or a kill cut the last line
        folder.write_text(HISTORY, kept)
    return events


class History:
    """The file as it grows: each batch is appended. Object stores cannot append: there the file is written whole, at
    each event but a loss while it is small, more seldom as it grows and for losses, and on leaving the `with`."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.pending = ""
        self.whole: str | None = None  # all that was written, where storage cannot append
        self.written = -float("inf")
        self.torn = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        if self.pending and not self._append():
            self._write_whole()

    def add(self, events: list[Event]) -> None:
        """Keep a batch."""
        self.pending += _lines(events)
        if self.pending and not self._append():
            for_losses = all(event["kind"] == "loss" for event in events)
            pause = SELDOM_S if for_losses else len(self.whole or "") / BYTES_PER_S
            if monotonic() >= self.written + pause:
                self._write_whole()

    def _append(self) -> bool:
        if self.whole is not None:
            return False
        if self.torn:
            self._take_back()
        try:
            self.folder.append_text(HISTORY, self.pending)
        except NotImplementedError:
            self.whole = _text(self.folder)
            return False
        except ConfigError:
            self.torn = True
            raise
        self.pending = ""
        return True

    def _take_back(self) -> None:
        """A full disk takes a part of what is appended: the file without that part, so that no line is cut."""
        text = _text(self.folder)
        taken = next(size for size in range(len(self.pending), -1, -1) if text.endswith(self.pending[:size]))
        self.folder.write_text(HISTORY, text.removesuffix(self.pending[:taken]))
        self.torn = False

    def _write_whole(self) -> None:
        whole = (self.whole or "") + self.pending
        self.folder.write_text(HISTORY, whole)
        self.whole, self.pending, self.written = whole, "", monotonic()


def parse_history(text: str) -> list[Event]:
    """Its events; of a driver that was killed as it wrote, the last line may be cut, and is passed over.

    Raises:
        ValueError: another line is none.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    events = [json.loads(line) for line in lines[:-1]]
    for last in lines[-1:]:
        try:
            events.append(json.loads(last))
        except ValueError:
            if text.endswith("\n"):
                raise
    return events


def _text(folder: RunFolder) -> str:
    return folder.read_text(HISTORY) if folder.has(HISTORY) else ""


def _lines(events: Iterable[Event]) -> str:
    return "".join(json.dumps(event) + "\n" for event in events)
