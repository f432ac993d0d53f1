"""`raylora doctor`: what is missing is a fault with its mending, what a job does not need is none."""

import socket
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from raylora.cluster import doctor
from raylora.cluster.doctor import Finding, NodeFacts, is_faulty, look_here
from raylora.config import Job

NODE = {"NodeID": "1", "NodeManagerHostname": "head", "NodeManagerAddress": "10.0.0.1"}


def test_a_version_outside_the_range_is_a_fault_that_says_what_to_install() -> None:
    (found,) = doctor._unmet(Requirement("pydantic>=99"))
    assert found.state == "fault" and found.mend == "pip install 'pydantic>=99'"
    (missing,) = doctor._unmet(Requirement("no-such-package>=1"))
    assert missing.found == "no-such-package is not installed"
    assert doctor._unmet(Requirement("pydantic>=2")) == []


def test_the_versions_here_are_those_that_are_supported() -> None:
    (found,) = doctor._versions()
    assert found.state == "ok" and "transformers 5." in found.found


@pytest.mark.parametrize(("adapters", "state"), [({}, "warning"), ({"a": "runs/a"}, "fault")])
def test_a_port_that_is_taken_is_a_fault_of_who_serves(adapters: dict[str, str], state: str) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        job = Job().replace({"serve.port": taken.getsockname()[1], "serve.adapters": adapters})
        found = doctor._port(job)
    assert found.state == state and "already in use" in found.found
    assert doctor._port(job).state == "ok"


def test_a_base_that_is_nowhere_is_a_fault(tmp_path: Path) -> None:
    job = Job().replace({"model.base_model": str(tmp_path / "gone")})
    (found,) = doctor._tried("base model", lambda: doctor._base(job))
    assert found.state == "fault" and "was not found" in found.found


def test_a_tracker_without_its_key_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    job = Job().replace({"train.report_to": ["wandb"]})
    (found,) = doctor._tried("extras", lambda: doctor._extras(job))
    assert found.state == "fault" and "WANDB_API_KEY" in found.found


def test_a_node_that_cannot_write_or_writes_elsewhere_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    facts = look_here(str(tmp_path / "file"), "mark")
    (fault,) = doctor._storage_fault("runs", NODE, facts, set())
    assert fault.state == "fault" and "head (10.0.0.1)" in fault.found
    (fault,) = doctor._storage_fault("runs", NODE, NodeFacts("mark", None, 0), {"other"})
    assert "is not the same folder as here" in fault.found
    seen = look_here(str(tmp_path / "runs"), "mark")
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["mark"]
    assert doctor._storage_fault("runs", NODE, seen, {"mark"}) == []


def test_docker_s_64_mb_of_shared_memory_are_warned_of() -> None:
    assert doctor._shared_memory(NODE, NodeFacts("", None, 64 * 2**20)).state == "warning"
    assert doctor._shared_memory(NODE, NodeFacts("", None, 8 * 2**30)).state == "ok"


def test_a_warning_alone_is_no_fault() -> None:
    said: list[Any] = [Finding("port", "warning", "8000 is taken", "set another")]
    assert str(said[0]) == "warning  port         8000 is taken. set another"
    assert not is_faulty(said) and is_faulty([*said, Finding("ray", "fault", "no Ray")])
