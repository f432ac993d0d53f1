"""Endpoints as a user starts them, in processes of their own, on real HTTP."""

import http.client
import json
import os
import signal
import subprocess
import time
from collections.abc import Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import commands

from raylora.cluster.session import free_port

START_S = 120.0


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


@dataclass(frozen=True)
class Server:
    url: str
    port: int
    process: subprocess.Popen[str]

    def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None, timeout_s: float = 60
    ) -> Reply:
        """One request on a connection of its own; a body that is not bytes goes as JSON."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)) as connection:
            connection.request(method, path, data, {"content-type": "application/json", **(headers or {})})
            reply = connection.getresponse()
            names = {name.lower(): value for name, value in reply.getheaders()}
            return Reply(reply.status, names, reply.read().decode("utf-8", "replace"))

    def predict(self, inputs: Any, path: str = "/predict", **parameters: Any) -> Reply:
        return self.ask("POST", path, {"inputs": inputs, "parameters": parameters})


@contextmanager
def serving(
    *words: str, folder: Path, environ: dict[str, str] | None = None, own_group: bool = False
) -> Generator[Server]:
    """`raylora serve ...` until the block ends, in fp32 on every machine; its output is in `folder`/serve.log.

    Args:
        own_group: whether it is the first of a process group; else a signal to the tests' group ends it, too.
    """
    port = free_port()
    settings = [f"serve.port={port}", f"storage_path={folder / 'runs'}", "serve.dtype=float32", *words]
    log = folder / "serve.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            commands.command(["raylora", "serve", *settings]),
            cwd=folder,
            env={**os.environ, **(environ or {})},
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=own_group,
        )
    server = Server(f"http://127.0.0.1:{port}", port, process)
    try:
        _wait(server, log)
        yield server
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


def _wait(server: Server, log: Path) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        if server.process.poll() is not None:
            raise AssertionError(f"the endpoint ended at once:\n{log.read_text()}")
        try:
            status = server.ask("GET", "/ready").status
            if status == 200:
                return
            assert status == 503, f"before the endpoint is there, {status}"
        except OSError:
            pass
        time.sleep(0.25)
    raise AssertionError(f"the endpoint was not ready after {START_S} s:\n{log.read_text()}")
