"""All of this folder is marked `gpu`: `pytest -m gpu`. Without a GPU it skips.

RAYLORA_GPU=0 runs it on CPUs instead, but for what only a GPU can show: so that the tests themselves are tested.
"""

import os

import pytest
import torch

ON_CPUS = os.environ.get("RAYLORA_GPU") == "0"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "/tests/gpu/" in str(item.path):
            item.add_marker(pytest.mark.gpu)


@pytest.fixture(autouse=True)
def gpu(request: pytest.FixtureRequest) -> bool:
    """Whether there is one, or CPUs take its place."""
    if ON_CPUS and not request.node.get_closest_marker("only_gpu"):
        return False
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    return True
