"""One job works in a run folder: lock.json says which, and goes when the job ends.

A job that could not take it away, killed or with its machine, is gone for good where its process is no more, seen from
the same machine; seen from another, where it has written no sign of life for `GONE_S`. Then the next one takes over.

    lock.json                   the first owner
    lock.json.TOKEN.taken       who took over from the owner with this token
    lock.json.TOKEN.alive       that owner's last sign of life

Who holds the lock is the last of the chain from lock.json on. Each link is created once (`exclusive`) and never written
again: of many that take over from one owner, one does, and one that dies just then is an owner that is gone, like any
other. That asks of storage only what local disks, NFS and S3 all have; to replace or remove a file on condition that it
is still the one that was read, disks have no call. Tokens are never used twice, so what outlives its chain counts for
nothing. The holder ends the chain at lock.json, then removes the rest, earlier left-overs too. Only an owner that is
taken for gone while it removes lock.json, milliseconds after it has seen that it holds it, breaks another's chain; that
one ends at its next look.
"""

import getpass
import hashlib
import json
import os
import re
import signal
import socket
import time
import uuid
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from raylora.cluster.periodic import run_every
from raylora.cluster.processes import started
from raylora.cluster.storage.exclusive import create_if_absent
from raylora.cluster.storage.filesystem import Location
from raylora.cluster.storage.run_folder import LOCK
from raylora.errors import ConfigError, LockError
from raylora.records import Say

BEAT_S = 20.0
GONE_S = 75.0  # three beats and some: a driver may be busy, and storage slow
LOOK_S = 1.0
BESIDE = re.compile(re.escape(LOCK) + r"\.[0-9a-f]{32}\.(taken|alive)(\.part)?")


class Lockable(Protocol):
    """A folder in which one job works at a time. `key` of the config names it, `place_key` where it lies."""

    key: str
    place_key: str
    path: str
    location: Location

    def named(self, what: str) -> AbstractContextManager[None]: ...


@dataclass(frozen=True)
class Owner:
    """Of a lock. `machine` and `began` tell its process from any other."""

    token: str
    user: str
    host: str
    machine: str
    process: int
    began: str
    since: str

    def __str__(self) -> str:
        return f"{self.user} on {self.host}, process {self.process}, since {self.since}"

    def dump(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"


@dataclass(frozen=True)
class Held:
    """A run folder's lock, as its job holds it; it travels with the job's work to other processes."""

    lock: Location
    token: str

    def lost(self) -> str | None:
        """Why the lock is not this job's any more; None while it is.

        Raises:
            OSError: storage fails.
        """
        last = _last(self.lock)
        if last is None:
            return f"this run's {LOCK} is gone: it was removed, or another job took the run over and has ended"
        return None if _token(last) == self.token else f"{_owner(last) or 'another job'} has taken this run over"

    def check(self) -> None:
        """Before what makes a run look finished is written.

        Raises:
            LockError: another job may work in the folder, or have finished the run.
            ConfigError: the lock cannot be read.
        """
        try:
            why = self.lost()
        except OSError as error:
            raise ConfigError(f"{self.lock.address} cannot be read: {error}") from None
        if why:
            raise LockError(
                f"{why}. Only the job that holds {self.lock.address} may end the run: nothing was written. Where no "
                "other job has finished it, the same command goes on from its last checkpoint."
            )


@contextmanager
def hold(folder: Lockable, say: Say) -> Generator[Held]:
    """While the `with` is open, no other job works in the folder. It is there then, and gone after if nothing is in it.

    A job that loses its lock meanwhile ends by SIGTERM.

    Raises:
        ConfigError: another job holds it, or the storage path cannot be written to.
    """
    lock = folder.location.inside(LOCK)
    made = _missing(folder) if folder.location.is_local else []
    me = _me()
    held = Held(lock, me.token)
    try:
        with folder.named("written to"):
            _take(lock, me, folder.key, say)
        with run_every(BEAT_S, lambda: _beat(held, say), "lock", say):
            yield held
    finally:
        with suppress(OSError):
            _let_go(held)
            for path in made:
                path.rmdir()


def _missing(folder: Lockable) -> list[Path]:
    """The folder and those around it that are not there yet, innermost first."""
    path = Path(folder.path)
    return [each for each in (path, *path.parents) if not each.exists()]


def _me() -> Owner:
    host, process = socket.gethostname(), os.getpid()
    return Owner(uuid.uuid4().hex, _user(), host, _machine(host), process, started(process) or "", _now())


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


def _take(lock: Location, me: Owner, key: str, say: Say) -> None:
    gone: Owner | None = None
    while _token(last := _last(lock)) != me.token:
        if last is not None and not _is_gone(lock, last, say):
            if (now := _last(lock)) is None:
                continue  # it has just ended
            raise ConfigError(
                f"run {lock.parent.address} is at work: {_owner(now) or 'another job'}. Two cannot share a folder: "
                f"choose another `{key}`, stop that one, or wait for its end."
            )
        gone = _owner(last)
        if not create_if_absent(lock if last is None else _beside(lock, last, "taken"), me.dump().encode()):
            time.sleep(0.1)  # another one was first, or its file is on its way
    if gone:
        say(f"lock       of {gone}, which is gone: taken over")


def _is_gone(lock: Location, last: str, say: Say) -> bool:
    owner = _owner(last)
    if owner and owner.machine == _machine(socket.gethostname()):
        found = started(owner.process)
        return found is None or ("" not in (found, owner.began) and found != owner.began)
    say(f"waiting    up to {GONE_S:g} s for a sign of life of {owner or 'what'}, which holds this run's lock")
    alive, until = _beside(lock, last, "alive"), time.monotonic() + GONE_S
    before = _read(alive)
    while time.monotonic() < until:  # its clock may be another than ours
        time.sleep(LOOK_S)
        if _last(lock) != last or _read(alive) != before:
            return False
    return True


def _beat(held: Held, say: Say) -> None:
    with suppress(OSError):  # the next may do
        if why := held.lost():
            say(f"warning    {why}: this one ends here")
            os.kill(os.getpid(), signal.SIGTERM)
            return
        _alive(held).write_text(_now())


def _let_go(held: Held) -> None:
    """What others left beside is listed while the lock is held: nothing of a later chain is among it."""
    left = [name for name in held.lock.parent.files() if BESIDE.fullmatch(name)]
    if held.lost():
        _alive(held).delete()
        return
    for name in (LOCK, *left):
        held.lock.parent.inside(name).delete()


def _last(lock: Location) -> str | None:
    """What the last of the chain says, who holds the lock; None where it is free."""
    last, text = None, _read(lock)
    while text is not None:
        last, text = text, _read(_beside(lock, text, "taken"))
    return last


def _beside(lock: Location, text: str, kind: str) -> Location:
    """A file of the owner that a link names; of one that cannot be read, by what stands there."""
    return lock.parent.inside(f"{LOCK}.{_token(text) or hashlib.sha256(text.encode()).hexdigest()[:32]}.{kind}")


def _alive(held: Held) -> Location:
    return held.lock.parent.inside(f"{LOCK}.{held.token}.alive")


def _read(lock: Location) -> str | None:
    try:
        return lock.read_text()
    except FileNotFoundError:
        return None


def _owner(text: str | None) -> Owner | None:
    """None where it cannot be read, or is nobody's."""
    try:
        return Owner(**json.loads(text or ""))
    except (ValueError, TypeError):
        return None


def _token(text: str | None) -> str | None:
    owner = _owner(text)
    return owner.token if owner else None
