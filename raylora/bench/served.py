"""A server on a port of this machine, in a process of its own: started, asked, and ended with all that it started."""

import json
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import psutil

from raylora.cluster.session import environ, free_port
from raylora.errors import TrainingError

Ranking = list[dict[str, Any]]  # label and score, best first
START_S, STOP_S = 240.0, 15.0


@dataclass(frozen=True)
class Running:
    port: int
    pid: int


@contextmanager
def running(command: Callable[[int], Sequence[str]], adapter: str | None = None) -> Generator[Running]:
    """A server from its first good answer on; ended, with all that it started, at the end.

    Args:
        command: what starts it on a port.
        adapter: that the first request names.

    Raises:
        TrainingError: it ended, or did not answer within 240 s; the end of what it wrote.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch, tempfile.TemporaryFile("w+") as output:
        port = free_port()
        process = subprocess.Popen(
            command(port), stdout=output, stderr=subprocess.STDOUT, env=environment(Path(scratch)), text=True
        )
        try:
            _wait_until_ready(process, port, adapter, output)
            yield Running(port, process.pid)
        finally:
            _stop(process)


def environment(scratch: Path) -> dict[str, str]:
    """This process's, with what Ray Serve's HAProxy takes of the machine out of another's way."""
    haproxy = {
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(scratch / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(scratch / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(scratch),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(scratch / "server-state"),
    }
    return {name: value for name, value in environ().items() if name != "RAY_ADDRESS"} | haproxy


def ask(port: int, texts: Sequence[str], adapter: str | None = None) -> list[Ranking]:
    """Raises:
    OSError: no connection, or another status than 200.
    """
    headers = {"Content-Type": "application/json"} | ({"serve_multiplexed_model_id": adapter} if adapter else {})
    body = json.dumps({"inputs": list(texts)}).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}/predict", body, headers)
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.loads(response.read())


def _wait_until_ready(process: "subprocess.Popen[str]", port: int, adapter: str | None, output: IO[str]) -> None:
    end, last = time.monotonic() + START_S, ""
    while time.monotonic() < end and process.poll() is None:
        try:
            ask(port, ["a text"], adapter)
        except (OSError, ValueError) as error:
            last = f"{error} {error.read()[:200]!r}" if isinstance(error, urllib.error.HTTPError) else str(error)
            time.sleep(0.5)
        else:
            return
    output.seek(0)
    raise TrainingError(f"a server of the bench did not start ({last}); it wrote:\n{output.read()[-2000:]}")


def _stop(process: "subprocess.Popen[str]") -> None:
    """As Ctrl-C does; what is left of it after 15 s is killed."""
    tree = _children(process.pid)
    process.send_signal(signal.SIGINT)
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        tree += _children(process.pid)
        process.kill()
        process.wait()
    for child in tree:
        try:
            child.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(tree, timeout=STOP_S)


def _children(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
