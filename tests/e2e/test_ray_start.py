"""Ray comes up, or one error says why not, in seconds; and it imports nothing of the user's."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import run

from raylora.cluster.session import free_port

pytestmark = pytest.mark.e2e

Bases = Callable[[str], Path]
Write = Callable[[int], str]


def refused(cwd: Path, *words: str, **environ: str) -> str:
    done = run("jobs/train.py", *words, cwd=cwd, environ=os.environ | environ, timeout_s=110)
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.startswith("error: ") and "Traceback" not in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) <= 3, done.stderr
    assert not (cwd / "runs").exists()
    return done.stderr


@pytest.mark.parametrize(("key", "source"), [(False, "RAY_ADDRESS in the environment"), (True, "`ray.address`")])
def test_an_address_where_nobody_listens_is_named_in_seconds_with_where_it_is_from(
    key: bool, source: str, tmp_path: Path, bases: Bases
) -> None:
    address, base = f"127.0.0.1:{free_port()}", f"model.base_model={bases('bert')}"
    words, environ = ([f"ray.address={address}"], {}) if key else ([], {"RAY_ADDRESS": address})
    start = time.monotonic()
    said = refused(tmp_path, base, *words, **environ)
    assert time.monotonic() - start < 90, "Ray itself tries for 14 minutes"
    assert re.search(rf"no Ray at {address} \({source}\): connection refused.*ray\.address=local", said, re.I), said


def test_the_note_of_a_cluster_that_is_gone_is_named(tmp_path: Path, bases: Bases) -> None:
    address = f"127.0.0.1:{free_port()}"
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text(address)
    base = f"model.base_model={bases('bert')}"
    said = refused(tmp_path, base, "ray.address=auto", RAY_TMPDIR=str(tmp_path))
    assert f"no Ray at {address} (`ray.address`, by {tmp_path}/ray/ray_current_cluster)" in said


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"TMPDIR": "{long}"}, r"Ray did not start.*path length.*RAY_TMPDIR"),
        ({"HOME": "/proc/nobody", "RAY_AUTH_MODE": "token"}, r"Ray did not start.*/proc/nobody.*HOME"),
        ({"RAY_TMPDIR": "/proc/nowhere"}, r"Ray did not start.*/proc/nowhere.*RAY_TMPDIR"),
    ],
    ids=["a long TMPDIR", "no home", "no place for temporary files"],
)
def test_a_ray_that_cannot_start_says_why_and_what_to_set(
    environ: dict[str, str], message: str, tmp_path: Path, bases: Bases
) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    said = refused(
        tmp_path, f"model.base_model={bases('bert')}", **{k: v.format(long=long) for k, v in environ.items()}
    )
    assert re.search(message, said, re.DOTALL), said


@pytest.mark.parametrize("command", ["train", "tune", "serve"])
def test_a_storage_path_that_cannot_be_written_ends_a_command_before_ray_starts(
    command: str, tmp_path: Path, bases: Bases
) -> None:
    """Ray itself could not start there either, and would have been the one to say so."""
    (tmp_path / "taken").write_text("")
    words = [f"model.base_model={bases('bert')}", f"storage_path={tmp_path}/taken"]
    if command == "serve":
        words.append(f"serve.adapter_root={tmp_path}")
    done = run(
        f"jobs/{command}.py", *words, cwd=tmp_path, environ=os.environ | {"RAY_TMPDIR": "/proc/nowhere"}, timeout_s=110
    )
    assert (done.returncode, "taken cannot be written to" in done.stderr) == (2, True), done.stdout + done.stderr


def test_workers_import_nothing_from_where_the_user_stands(tmp_path: Path, bases: Bases, reviews_file: Write) -> None:
    """Files beside the data that carry the names of libraries: neither run nor taken for them."""
    reviews_file(40)
    for name in ("peft", "datasets", "pandas"):
        (tmp_path / f"{name}.py").write_text(
            f"from pathlib import Path\nPath({str(tmp_path)!r}, 'was_run').write_text({name!r})\nraise ImportError\n"
        )
    settings = ["storage_path=runs", "run_name=first", "train.num_train_epochs=1", "train.floor=false"]
    done = run(
        "raylora",
        "train",
        "data.train=reviews40.jsonl",
        f"model.base_model={bases('bert')}",
        *settings,
        cwd=tmp_path,
        timeout_s=200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not (tmp_path / "was_run").exists(), (tmp_path / "was_run").read_text()


def test_ray_is_asked_without_the_users_proxy(tmp_path: Path) -> None:
    """As Ray Train asks the dashboard for its actors, at this machine's own address."""
    code = (
        "from raylora.cluster.session import connect; from raylora.config import RaySection\n"
        "from ray.util.state import list_actors\n"
        "with connect(RaySection(), dashboard=True) as own:\n    print(list_actors(address=own.address))"
    )
    proxy = f"http://127.0.0.1:{free_port()}"
    asked = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"http_proxy": proxy},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert (asked.returncode, asked.stdout) == (0, "[]\n"), asked.stderr[-2000:]


LATE = """
import os, signal, threading, time
from pathlib import Path
from raylora.cluster.processes import children
from raylora.cluster.session import connect
from raylora.config import RaySection

def raylets():
    return [each for each in children() if b"raylet/raylet" in Path(f"/proc/{each}/cmdline").read_bytes()]

def stop_the_first():
    while not (found := raylets()):
        time.sleep(0.01)
    os.kill(found[0], signal.SIGSTOP)
    print("stopped", found[0], flush=True)

threading.Thread(target=stop_the_first, daemon=True).start()
with connect(RaySection()) as cluster:
    print("up", *raylets(), flush=True)
"""


@pytest.mark.slow
def test_a_raylet_that_is_not_up_in_time_is_ended_and_started_anew() -> None:
    done = subprocess.run([sys.executable, "-c", LATE], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    stopped, up = (line.split()[1:] for line in done.stdout.splitlines())
    assert len(stopped) == len(up) == 1 and stopped != up
