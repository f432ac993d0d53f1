"""One endpoint for the session's tests, of two adapters on a tiny random base."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from serving import Server, serving
from tiny import make_adapter


@pytest.fixture(scope="session")
def adapters(bases: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of adapters: `demo` of two labels, `topics` of four and another rank, `three` of other targets."""
    folder = tmp_path_factory.mktemp("adapters")
    base = bases("bert")
    make_adapter(base, folder / "demo", ("negative", "positive"), seed=1)
    make_adapter(base, folder / "topics", ("sports", "business", "science", "world"), seed=2, lora__r=8)
    make_adapter(base, folder / "three", ("a", "b", "c"), seed=3, lora__target_modules=["key", "dense"])
    return folder


@pytest.fixture(scope="session")
def server(adapters: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("endpoint")
    words = [f"serve.adapters.{name}={adapters / name}" for name in ("demo", "topics")]
    with serving(*words, f"serve.adapter_root={adapters}", folder=folder) as running:
        yield running
