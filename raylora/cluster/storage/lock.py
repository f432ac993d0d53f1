"""One job works in a run folder: lock.json says which, and goes when the job ends.

A job that could not take it away, killed or with its machine, is gone for good where its process is no more, seen from
the same machine; seen from another, where it has written no sign of life for `GONE_S`. Then the next one takes over.
"""

import getpass
import json
import os
import signal
import socket
import time
import uuid
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from raylora.cluster.periodic import run_every
from raylora.cluster.processes import started
from raylora.cluster.storage.exclusive import create_if_absent
from raylora.cluster.storage.filesystem import Location
from raylora.cluster.storage.run_folder import LOCK, RunFolder
from raylora.errors import ConfigError
from raylora.records import Say

BEAT_S = 20.0
GONE_S = 75.0  # three beats and some: a driver may be busy, and storage slow
LOOK_S = 1.0


@dataclass(frozen=True)
class Owner:
    """Of a lock. `machine` and `began` tell its process from any other; `alive` is its last sign of life."""

    token: str
    user: str
    host: str
    machine: str
    process: int
    began: str
    since: str
    alive: str

    def __str__(self) -> str:
        return f"{self.user} on {self.host}, process {self.process}, since {self.since}"

    def dump(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"


@contextmanager
def hold(folder: RunFolder, say: Say) -> Generator[None]:
    """While the `with` is open, no other job works in the folder. It is there then, and gone after if nothing is in it.

    Raises:
        ConfigError: another job holds it, or the storage path cannot be written to.
    """
    lock = folder.location.inside(LOCK)
    made = _missing(folder) if folder.location.is_local else []
    me = _me()
    try:
        with folder.named("written to"):
            _take(lock, me, say)
        with run_every(BEAT_S, lambda: _beat(lock, me, say), "lock", say):
            yield
    finally:
        with suppress(OSError):
            if _token(_read(lock)) == me.token:
                lock.delete()
            for path in made:
                path.rmdir()


def _missing(folder: RunFolder) -> list[Path]:
    """The folder and those around it that are not there yet, innermost first."""
    path = Path(folder.path)
    return [each for each in (path, *path.parents) if not each.exists()]


def _me() -> Owner:
    now, process = _now(), os.getpid()
    host = socket.gethostname()
    return Owner(uuid.uuid4().hex, _user(), host, _machine(host), process, started(process) or "", now, now)


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container whose user has no name
        return str(os.getuid())


def _machine(host: str) -> str:
    """Within which a process's number means the same: a container that is started again has its host's name only."""
    known = [host]
    with suppress(OSError):
        known += [Path("/proc/sys/kernel/random/boot_id").read_text().strip(), os.readlink("/proc/self/ns/pid")]
    return " ".join(known)


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _take(lock: Location, me: Owner, say: Say) -> None:
    while not create_if_absent(lock, me.dump().encode()):
        text = _read(lock)
        if _token(text) == me.token:
            return
        if text is None:
            time.sleep(0.1)  # just gone: it is free
            continue
        owner = _owner(text)
        if not _is_gone(lock, text, owner, say):
            raise ConfigError(
                f"run {lock.parent.address} is at work: {owner or 'another job'}. Two cannot share a folder: choose "
                "another `run_name`, stop that one, or wait for its end."
            )
        if owner:
            say(f"lock       of {owner}, which is gone: taken over")
        if _read(lock) == text:  # two that take over at one moment: the first one's is not touched
            lock.delete()


def _is_gone(lock: Location, text: str, owner: Owner | None, say: Say) -> bool:
    if owner and owner.machine == _machine(socket.gethostname()):
        found = started(owner.process)
        return found is None or ("" not in (found, owner.began) and found != owner.began)
    say(f"waiting    up to {GONE_S:g} s for a sign of life of {owner or 'what'}, which holds this run's lock")
    until = time.monotonic() + GONE_S
    while time.monotonic() < until:  # its clock may be another than ours
        time.sleep(LOOK_S)
        if (seen := _read(lock)) != text:
            return seen is None
    return True


def _beat(lock: Location, me: Owner, say: Say) -> None:
    with suppress(OSError):  # the next may do
        text = _read(lock)
        if text is not None and _token(text) != me.token:
            say(f"warning    {_owner(text) or 'another job'} has taken this run over: this one ends here")
            os.kill(os.getpid(), signal.SIGTERM)
            return
        lock.write_text(replace(me, alive=_now()).dump())


def _read(lock: Location) -> str | None:
    try:
        return lock.read_text()
    except FileNotFoundError:
        return None


def _owner(text: str) -> Owner | None:
    """None where it cannot be read."""
    try:
        return Owner(**json.loads(text))
    except (ValueError, TypeError):
        return None


def _token(text: str | None) -> str | None:
    owner = _owner(text) if text else None
    return owner.token if owner else None
