"""Ray comes up for this process, or one error says why not and what to do."""

import os
import signal
import socket
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ray.job_config import JobConfig

from raylora.cluster.processes import children
from raylora.errors import ClusterError

ANSWER_S = 5.0  # to an open port; `ray.init` itself tries for 14 minutes
PORTS = "Ray's own port is 6379 by default, 10001 behind ray://; 8265 is its dashboard's."
# RFC 9113, 3.4: what each HTTP/2 connection begins with, and an empty SETTINGS frame; Ray speaks gRPC, which is HTTP/2
HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0" + b"\x04" + b"\0" + b"\0\0\0\0"
SETTINGS = b"\x04"
SLOW = "imed out"  # the raylet "timed out during startup", "Timed out waiting for file" of the control store's port
# Ray's words, and what mends it
MENDS = (
    ("path length", "The folder of Ray's sockets has too long a path: set RAY_TMPDIR to a short one, such as /tmp."),
    ("oken", "Set RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH to the cluster's token."),
    ("ersion mismatch", "Install the cluster's versions here, or start the job inside of it with `ray job submit`."),
)
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy")


@dataclass(frozen=True)
class Address:
    """Of a Ray to join, and what named it; `is_found` of one that Ray itself is to look for."""

    text: str
    source: str
    is_found: bool = False

    def __str__(self) -> str:
        return f"{self.text} ({self.source})"


def find_address(setting: str | None, environ: Mapping[str, str]) -> Address | None:
    """Of the Ray that a job joins; None = it has one of its own.

    Args:
        setting: `ray.address`.
    """
    text, source = setting, "`ray.address`"
    if setting in (None, "auto") and environ.get("RAY_ADDRESS"):
        text, source = environ["RAY_ADDRESS"], "RAY_ADDRESS in the environment"
    if not text or text == "local":
        return None
    if text == "auto":
        note = _temporary(environ) / "ray_current_cluster"  # Ray's, of what `ray start` began here last
        with suppress(OSError):
            return Address(note.read_text(encoding="utf-8").strip(), f"{source}, by {note}", is_found=True)
    return Address(text, source)


def _temporary(environ: Mapping[str, str]) -> Path:
    return Path(environ.get("RAY_TMPDIR") or environ.get("TMPDIR") or "/tmp") / "ray"


def check_answers(address: Address, encrypted: bool = False) -> None:
    """Try its port: a Ray that is not there is known in seconds.

    Args:
        encrypted: nothing can be told from the first bytes.

    Raises:
        ClusterError: nobody listens, or it is no Ray that answers.
    """
    scheme, mark, rest = address.text.rpartition("://")
    if address.text == "auto" or scheme not in ("", "ray"):
        return  # Ray looks for one on this machine, or has its own ways
    place = urlsplit(f"//{rest}")
    try:
        host, port = place.hostname, place.port
    except ValueError:
        host = port = None
    if not host or not port:
        raise ClusterError(_nobody(address, f"it must be written {scheme}{mark}HOST:PORT"))
    try:
        with socket.create_connection((host, port), timeout=ANSWER_S) as connection:
            found = SETTINGS if encrypted else _greet(connection)
    except OSError as error:
        raise ClusterError(_nobody(address, (error.strerror or str(error)).lower())) from None
    if found != SETTINGS:
        raise ClusterError(_nobody(address, f"what listens there is something else. {PORTS.rstrip('.')}"))


def _greet(connection: socket.socket) -> bytes:
    """The kind of frame that comes back; a Ray too busy to answer gets the benefit of the doubt."""
    try:
        connection.sendall(HELLO)
        return connection.recv(9)[3:4]
    except TimeoutError:
        return SETTINGS


def _nobody(address: Address, why: str) -> str:
    unset = "unset RAY_ADDRESS" if address.source.startswith("RAY_ADDRESS") else "correct it"
    return f"no Ray at {address}: {why}. Start it, {unset}, or set ray.address=local for a Ray of the job's own."


def bring_up(init: Callable[[], object], address: Address | None, environ: Mapping[str, str]) -> None:
    """Call `init`, and once more where a Ray of the job's own was not up in time; what the first one left is ended.

    Raises:
        ClusterError: why there is no Ray, and what to do.
    """
    for is_last in (False, True):
        before = set(children())
        try:
            init()
            return
        except Exception as error:  # noqa: BLE001 - of all kinds, bare Exception among them
            _end(set(children()) - before)
            if address or SLOW not in str(error) or is_last:
                raise ClusterError(explain(error, address, environ)) from None


def _end(processes: Iterable[int]) -> None:
    """Ray's, of a start that failed: it leaves them to this process's end, and the next ones share the cores."""
    for process in processes:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(process, signal.SIGKILL)


def explain(error: Exception, address: Address | None, environ: Mapping[str, str]) -> str:
    """What kept Ray from coming up, in a line or two."""
    said = " ".join(str(error).split()) or type(error).__name__
    where = f"could not be joined at {address}" if address else "did not start on this machine"
    return f"Ray {where}: {said.rstrip('.')}. {_mend(error, said, address, environ)}"


def _mend(error: Exception, said: str, address: Address | None, environ: Mapping[str, str]) -> str:
    for words, mend in MENDS:
        if words in said:
            return mend
    if SLOW in said:
        return "Is it busy? Try again." if address else "Is this machine busy? It was tried twice; try again."
    if address:
        return "Correct the address, or set ray.address=local for a Ray of the job's own."
    folder, token = _temporary(environ), f"{environ.get('HOME')}/.ray/auth_token"
    if isinstance(error, OSError) and error.filename and token.startswith(str(error.filename)):
        return "Ray keeps a token in ~/.ray: set HOME to a folder that can be written, or RAY_AUTH_MODE=disabled."
    if isinstance(error, OSError):
        return f"Ray works in {folder}: set RAY_TMPDIR to a folder that can be written and has room."
    return f"Its logs are in {folder}/session_latest/logs."


def without_proxy(hosts: Iterable[str], environ: Mapping[str, str]) -> dict[str, str]:
    """Variables that keep a proxy, where one is set, from what Ray's processes say to each other."""
    if not any(environ.get(name) or environ.get(name.upper()) for name in PROXIES):
        return {}
    names = ("no_proxy", "NO_PROXY")  # each library has its own favourite: both hold all
    given = [host.strip() for name in names for host in environ.get(name, "").split(",")]
    merged = ",".join(dict.fromkeys(host for host in (*given, "localhost", "127.0.0.1", "::1", *hosts) if host))
    return dict.fromkeys(names, merged)


def host_of(address: Address) -> str:
    """Empty where it names none."""
    return urlsplit(f"//{address.text.rpartition('://')[2]}").hostname or ""


class _Imports(list[str]):
    """Folders that workers import from. Ray adds the user's current one; here it stays out, as it does of the driver's:
    a `datasets.py` beside the data is not ours to run."""

    def extend(self, folders: Iterable[str]) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        drivers = {os.path.realpath(folder) for folder in sys.path}
        super().extend(folder for folder in folders if os.path.realpath(folder) in drivers)


def import_as_here() -> JobConfig:
    """A job whose workers import what this process imports."""
    config: Any = JobConfig()
    config._py_driver_sys_path = _Imports()  # Ray has no public way; `ray.init` extends it, `tests/e2e` hold it
    return config
