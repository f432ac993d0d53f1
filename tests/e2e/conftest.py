"""One endpoint for the session's tests: two adapters on a tiny random base, and more, of every task, in its root."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from serving import Server, serving
from tiny import make_adapter


@pytest.fixture(scope="session")
def adapters(bases: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of adapters: `demo` of two labels, `topics` of four and another rank, `three` of other targets; and of
    other kinds `moods` (several labels a text), `stars` (a number), `pairs` and `careful` (promises an accuracy)."""
    folder = tmp_path_factory.mktemp("adapters")
    base = bases("bert")
    make_adapter(base, folder / "demo", ("negative", "positive"), seed=1)
    make_adapter(base, folder / "topics", ("sports", "business", "science", "world"), seed=2, lora__r=8)
    make_adapter(base, folder / "three", ("a", "b", "c"), seed=3, lora__target_modules=["key", "dense"])
    many = {"problem_type": "multi_label_classification", "thresholds": {"joy": 0.63, "love": 0.7, "fear": 0.6}}
    promise = {"score": 0.6, "coverage": 0.5, "rows": 50, "error": 0.04}
    make_adapter(base, folder / "moods", ("joy", "love", "fear"), seed=4, facts=many)
    make_adapter(base, folder / "stars", ("stars",), seed=5, facts={"problem_type": "regression", "is_pair": False})
    make_adapter(base, folder / "pairs", ("same", "other"), seed=6, facts={"is_pair": True})
    make_adapter(base, folder / "careful", ("no", "yes"), seed=7, facts={"min_scores": {"0.9": promise}})
    return folder


@pytest.fixture(scope="session")
def server(adapters: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("endpoint")
    words = [f"serve.adapters.{name}={adapters / name}" for name in ("demo", "topics")]
    with serving(*words, f"serve.adapter_root={adapters}", folder=folder) as running:
        yield running
