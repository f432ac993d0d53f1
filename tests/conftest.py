"""What all tests share: one Ray per session, tiny random base models, a small labelled file, the real datasets."""

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

os.environ["RAY_AUTH_MODE"] = "disabled"  # one test runs with it on
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_metrics_report_interval_ms"] = "4000"  # noqa: SIM112 - 10,000 by default; what `Gauges` keeps is set every 5 s
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.pop("RAY_ADDRESS", None)
sys.path.insert(0, str(Path(__file__).parent))  # for the helpers beside this file, in Ray's workers too
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]))


BEGAN = time.monotonic()
SECONDS = float(os.environ.get("RAYLORA_SECONDS", "inf"))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """CI ends within 45 minutes on a machine of half the speed, too: what would begin too late is skipped."""
    is_long = any(item.get_closest_marker(name) for name in ("cluster", "e2e", "slow"))
    if is_long and time.monotonic() - BEGAN > SECONDS:
        pytest.skip(f"more than RAYLORA_SECONDS={SECONDS:.0f} into the session")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real datasets."""
    path = Path(os.environ.get("RAYLORA_REAL_DATA", ROOT.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"no real datasets in {path}")
    return path


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """A Ray of four logical CPUs, whatever the machine has, for all tests of the session."""
    import logging

    import ray

    from raylora.cluster.session import OWN, QUIET

    os.environ.update(QUIET | OWN)
    ray.init(address="local", num_cpus=4, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Tiny random base models by architecture, each saved once per session."""
    from tiny import save_base

    root = tmp_path_factory.mktemp("bases")

    def base(kind: str) -> Path:
        if not (root / kind).exists():
            save_base(kind, root / kind)
        return root / kind

    return base


@pytest.fixture(scope="session")
def reviews() -> list[dict[str, str]]:
    """The bundled demo."""
    from raylora.demo import REVIEWS

    return [json.loads(line) for line in REVIEWS.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def reviews_file(tmp_path: Path, reviews: list[dict[str, str]]) -> Callable[[int], str]:
    """The first `count` demo reviews as a jsonl file."""

    def write(count: int) -> str:
        path = tmp_path / f"reviews{count}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in reviews[:count]), encoding="utf-8")
        return str(path)

    return write


@pytest.fixture
def s3_address(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    """Addresses on an S3 of the test's own, by bucket and path; it takes conditions as Amazon's does."""
    from moto import server

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    running = server.ThreadedMotoServer("127.0.0.1", 0)
    running.start()
    host, port = running.get_host_and_port()
    options = f"endpoint_override={host}:{port}&scheme=http&allow_bucket_creation=true&region=us-east-1"
    yield lambda path: f"s3://{path}?{options}"
    running.stop()


@pytest.fixture
def old_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of tests/data/old, which is then the working directory: the paths in its files are relative to it."""
    copy = shutil.copytree(ROOT / "tests" / "data" / "old", tmp_path / "old")
    monkeypatch.chdir(copy)
    return copy
