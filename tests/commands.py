"""Commands as a user types them, in processes of their own."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[1]
ON_CLUSTERS = pytest.mark.skipif(
    "RAYLORA_CLUSTERS" not in os.environ, reason="several nodes on this machine: RAYLORA_CLUSTERS=1"
)


def command(words: Sequence[str]) -> list[str]:
    """`jobs/x.py ...` run by this Python from anywhere; `raylora ...` and `ray ...` are those beside it."""
    first, *rest = words
    if first.startswith("jobs/"):
        return [sys.executable, str(ROOT / first), *rest]
    return [str(Path(sys.executable).with_name(first)), *rest]


def run(
    *words: str, cwd: Path = ROOT, environ: Mapping[str, str] | None = None, timeout_s: float = 120
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(words),
        cwd=cwd,
        env=dict(os.environ if environ is None else environ),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def end_processes_of(folder: Path) -> None:
    """Those of the Ray whose temporary folder this is; `ray stop` would take the session's own with it."""
    for process in psutil.process_iter(["cmdline"]):
        if any(str(folder) in part for part in process.info["cmdline"] or ()):
            with suppress(psutil.NoSuchProcess):
                process.kill()
