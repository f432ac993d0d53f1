"""Processes of this machine, as /proc shows them; where there is none, less is known."""

import os
from contextlib import suppress
from pathlib import Path


def started(process: int) -> str | None:
    """When a process that runs began, in the kernel's own count, which tells it from a later one of the same number.

    Empty where /proc does not show it; None of one that has ended.
    """
    fields = _fields(process)
    if fields:
        return None if fields[0] in "ZX" else fields[19]
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return None
    except PermissionError:  # another user's
        pass
    return ""


def children() -> list[int]:
    """Of this process."""
    mine = str(os.getpid())
    return [process for process in _all() if (fields := _fields(process)) is not None and fields[1] == mine]


def _all() -> list[int]:
    with suppress(OSError):
        return [int(name) for name in os.listdir("/proc") if name.isdecimal()]
    return []


def _fields(process: int) -> list[str] | None:
    """Of its stat, from the state on: a command's name may hold anything."""
    with suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    return None
