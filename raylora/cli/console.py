"""What a command says: lines for people, or, with RAYLORA_LOG=json, a JSON object a line for programs."""

import json
import re
import sys
from datetime import UTC, datetime
from typing import Literal, TextIO

from raylora.errors import ConfigError

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

    def say(self, line: str) -> None:
        self._write(sys.stdout, "warning" if line.startswith("warning ") else "info", line, line)

    def fail(self, level: Level, message: str, shown: str) -> None:
        """Say on stderr why the command ends; `shown` is for people."""
        self._write(sys.stderr, level, message, shown)

    def _write(self, file: TextIO, level: Level, message: str, shown: str) -> None:
        print(self._record(level, message) if self.json else shown, file=file, flush=True)

    def _record(self, level: Level, message: str) -> str:
        record = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "level": level, "run": self.run}
        trial = TRIAL.match(message)
        if trial:
            record["trial"] = trial[1]
        return json.dumps({**record, "message": message.strip()}, ensure_ascii=False)
