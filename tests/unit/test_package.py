"""What `ray job submit --working-dir .` uploads, packed by Ray's own code."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from commands import ROOT
from ray._private.runtime_env.packaging import create_package  # noqa: TID251 - what packs is what is tested

SECRETS = [
    ".env",
    ".env.production",
    ".envrc",
    "jobs/.env",
    "server.pem",
    "certs/private.key",
    "keystore.p12",
    "id_rsa",
    "deploy/id_ed25519",
    ".ssh/config",
    ".aws/credentials",
    ".kube/config",
    ".docker/config.json",
    ".netrc",
    ".pypirc",
    ".git-credentials",
    "gcp-credentials.json",
    "my-service-account.json",
    ".git/config",
    ".venv/lib/python3/site-packages/x.py",
    "runs/first/adapter/adapter_model.safetensors",
    "build/lib/x.py",
    "raylora/__pycache__/x.pyc",
    ".hypothesis/x",
]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository's files as a user has them, and beside them what must stay at home."""
    folder = tmp_path_factory.mktemp("project")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    for name in filter(None, [*listed.stdout.split("\0"), *SECRETS]):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((ROOT / name).read_bytes() if name not in SECRETS else b"secret")
    (folder / "environment").mkdir()
    (folder / "venv").symlink_to(folder / "environment")  # an environment may be a link, and .git a file
    return folder


@pytest.mark.parametrize("gitignore", [True, False])
def test_no_secret_and_no_ballast_leaves_and_the_jobs_do(gitignore: bool, project: Path, tmp_path: Path) -> None:
    create_package(str(project), tmp_path / "package.zip", include_gitignore=gitignore)
    with zipfile.ZipFile(tmp_path / "package.zip") as package:
        names = set(package.namelist())
        assert not [name for name in names if package.read(name) == b"secret"]
    assert {
        "jobs/train.py",
        "jobs/sst2.yaml",
        "raylora/cli/main.py",
        "raylora/demo/reviews.jsonl",
        "pyproject.toml",
    } <= names
    assert "raylora/cluster/serve/page.html" in names
    assert not [name for name in names if name.startswith(("tests/", ".git/", ".ci/", "venv"))]


def test_the_package_is_small(project: Path, tmp_path: Path) -> None:
    create_package(str(project), tmp_path / "package.zip", include_gitignore=True)
    size = (tmp_path / "package.zip").stat().st_size
    print(f"working_dir package: {size / 1e6:.2f} MB")
    assert size < 2e6


def test_a_worktrees_git_file_stays_at_home(tmp_path: Path) -> None:
    (tmp_path / ".rayignore").write_bytes((ROOT / ".rayignore").read_bytes())
    (tmp_path / ".git").write_text("gitdir: /home/me/project/.git/worktrees/x")
    (tmp_path / "a.py").write_text("")
    create_package(str(tmp_path), tmp_path.with_suffix(".zip"), include_gitignore=False)
    with zipfile.ZipFile(tmp_path.with_suffix(".zip")) as package:
        assert sorted(package.namelist()) == [".rayignore", "a.py"]


@pytest.mark.slow
def test_an_editable_install_is_found_from_beside_its_clone(project: Path, tmp_path: Path) -> None:
    """There the clone, a folder of that name, is an empty namespace to Python; Ray's workers look there, too."""
    (tmp_path / "raylora").symlink_to(project)
    subprocess.run([sys.executable, "-m", "venv", "venv"], cwd=tmp_path, check=True)
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", "-e", "raylora"], cwd=tmp_path, check=True)
    code = "import raylora; print(raylora.__version__)"
    assert subprocess.run([python, "-c", code], cwd=tmp_path, capture_output=True, text=True).stdout.startswith("0.")
