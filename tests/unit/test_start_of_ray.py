"""Where a job's Ray is, what is said where there is none, and what keeps a proxy away from it. No Ray is started."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from raylora.cluster.processes import started
from raylora.cluster.session import free_port
from raylora.cluster.start import Address, bring_up, check_answers, find_address, import_as_here, without_proxy
from raylora.errors import ClusterError


def test_an_address_comes_from_the_key_then_the_environment_then_rays_own_note(tmp_path: Path) -> None:
    here = {"RAY_ADDRESS": "10.0.0.1:6379", "RAY_TMPDIR": str(tmp_path)}
    assert find_address("h:1", here) == Address("h:1", "`ray.address`")
    assert find_address(None, here) == Address("10.0.0.1:6379", "RAY_ADDRESS in the environment")
    assert find_address("auto", here) == find_address(None, here)
    assert find_address("local", here) is None
    assert find_address(None, {"RAY_ADDRESS": ""}) is None
    assert find_address("auto", {"RAY_TMPDIR": str(tmp_path)}) == Address("auto", "`ray.address`")
    note = tmp_path / "ray" / "ray_current_cluster"
    note.parent.mkdir()
    note.write_text("10.0.0.2:6379")
    assert str(find_address("auto", {"TMPDIR": str(tmp_path)})) == f"10.0.0.2:6379 (`ray.address`, by {note})"


@contextmanager
def listening(answer: bytes) -> Iterator[int]:
    """A server that sends this to whoever has said something; nothing, and no word, where that is empty."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]


def test_what_listens_and_is_no_ray_is_said_with_rays_ports() -> None:
    with listening(b"HTTP/1.1 400 Bad Request\r\n\r\n") as port, pytest.raises(ClusterError, match="6379 by default"):
        check_answers(Address(f"127.0.0.1:{port}", "`ray.address`"))
    with listening(b"\0\0\x06\x04\0\0\0\0\0") as port:  # SETTINGS
        check_answers(Address(f"ray://127.0.0.1:{port}", "`ray.address`"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"127.0.0.1:{free_port()}", "connection refused. Start it, correct it, or set ray.address=local"),
        ("nowhere.invalid:6379", "no Ray at nowhere.invalid:6379"),
        ("localhost", "must be written HOST:PORT"),
        ("ray://localhost:six", "must be written ray://HOST:PORT"),
    ],
)
def test_an_address_that_cannot_be_is_refused_within_seconds(text: str, message: str) -> None:
    start = time.monotonic()
    with pytest.raises(ClusterError) as error:
        check_answers(Address(text, "`ray.address`"))
    assert message in str(error.value) and time.monotonic() - start < 10


def sleeper() -> int:
    """A process of this one's."""
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]).pid


def test_a_ray_that_was_not_up_in_time_is_tried_once_more_without_what_it_left() -> None:
    left: list[int] = []

    def init() -> None:
        left.append(sleeper())
        if len(left) < 2:
            raise Exception("The current node timed out during startup.")

    mine = sleeper()
    bring_up(init, None, {})
    assert [started(process) is not None for process in (*left, mine)] == [False, True, True]
    for process in (left[1], mine):
        os.kill(process, signal.SIGKILL)


def test_a_ray_that_is_never_up_in_time_ends_in_one_error() -> None:
    tried: list[int] = []

    def init() -> None:
        tried.append(1)
        raise Exception("The current node timed out during startup.")

    with pytest.raises(ClusterError, match=r"did not start on this machine: The current node timed out .* busy\?"):
        bring_up(init, None, {})
    assert tried == [1, 1]


def test_other_failures_are_not_tried_again() -> None:
    tried: list[int] = []

    def init() -> None:
        tried.append(1)
        raise RuntimeError("Version mismatch: Python 3.9")

    with pytest.raises(ClusterError, match=r"joined at h:1 \(RAY_ADDRESS\): Version mismatch.*ray job submit"):
        bring_up(init, Address("h:1", "RAY_ADDRESS"), {})
    with pytest.raises(ClusterError, match=r"Timed out .* Is it busy\?"):
        bring_up(lambda: tried.append(2) or time_out(), Address("h:1", "RAY_ADDRESS"), {})
    assert tried == [1, 2], "Ray has waited long enough for another's"


def time_out() -> None:
    raise TimeoutError("Timed out waiting for file gcs_server_port")


def test_rays_own_addresses_go_round_a_proxy_and_those_of_the_user_stay() -> None:
    assert without_proxy(["10.0.0.1"], {"PATH": "/bin"}) == {}
    proxied = {"HTTPS_PROXY": "http://p:3128", "NO_PROXY": "corp.example, 127.0.0.1", "no_proxy": ".internal"}
    assert without_proxy(["10.0.0.1"], proxied) == dict.fromkeys(
        ("no_proxy", "NO_PROXY"), ".internal,corp.example,127.0.0.1,localhost,::1,10.0.0.1"
    )


def test_workers_import_from_the_current_directory_where_the_driver_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def paths() -> list[str]:
        config = import_as_here()
        config._py_driver_sys_path.extend([str(tmp_path), str(tmp_path / "script")])  # as `ray.init` does
        return list(config._py_driver_sys_path)

    monkeypatch.setattr(sys, "path", ["/usr/lib"])
    assert paths() == []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", str(tmp_path / "script")])
    assert paths() == [str(tmp_path), str(tmp_path / "script")]
