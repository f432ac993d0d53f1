"""`raylora doctor` as a user runs it."""

import json
import subprocess
from pathlib import Path

import pytest
from commands import run

pytestmark = pytest.mark.e2e
SMALL = "ray.address=local"


def doctor(*words: str, at: Path) -> subprocess.CompletedProcess[str]:
    return run("raylora", "doctor", *words, cwd=at, timeout_s=300)


def test_all_is_well_and_nothing_is_left_behind(tmp_path: Path) -> None:
    done = doctor(SMALL, "--json", at=tmp_path)
    found = {each["check"]: each["state"] for each in json.loads(done.stdout)}
    assert done.returncode == 0 and found["storage"] == "ok" and found["ray"] == "ok" and found["base model"] == "ok"
    assert list(tmp_path.iterdir()) == []


def test_what_is_missing_ends_in_1_and_says_how_to_mend_it(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    done = doctor(SMALL, "ray.num_workers=64", "ray.resources_per_worker={CPU: 64}", at=tmp_path)
    assert done.returncode == 1
    faults = [line for line in done.stdout.splitlines() if line.startswith("fault")]
    assert {line.split()[1] for line in faults} == {"workers", "storage"}
    assert "Traceback" not in done.stderr
