"""The adapters that a replica holds, by the table of a registry, in this process."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny import make_adapter

from raylora.cluster.serve.adapter_store import AdapterStore
from raylora.cluster.serve.registry import Registry
from raylora.config import Job, ModelSection
from raylora.errors import ConfigError
from raylora.model.serving.base import ServedBase

Bases = Callable[[str], Path]


def open_store(base: Path, runs: Path) -> AdapterStore:
    served = ServedBase(ModelSection(base_model=str(base)), torch.float32, torch.device("cpu"))
    return AdapterStore(served, 2**30, None, None, merge=False, kept=str(runs / "serve" / "versions"))


def test_an_adapter_retrained_in_place_is_served_after_a_restart_and_can_be_taken_back(
    bases: Bases, tmp_path: Path
) -> None:
    folder = make_adapter(bases("bert"), tmp_path / "x", ("a", "b"), seed=1)
    job = Job().replace({"storage_path": str(tmp_path), "run_name": "serve", "serve.adapters": {"x": str(folder)}})
    Registry(job.model_dump())
    make_adapter(bases("bert"), folder, ("a", "b"), seed=2)
    registry = Registry(job.model_dump())
    store = open_store(bases("bert"), tmp_path)

    async def work() -> None:
        await store.follow(registry.table)
        found = await store.find("x", 0.5)
        assert (found.version, found.adapter.digest) == ("2", registry.table.entry("x").current.digest)
        await store.check_previous("x")
        await store.follow(registry.table.rollback("x"))
        back = await store.find("x", 0.5)
        assert (back.version, back.adapter.digest != found.adapter.digest) == ("1", True)
        await registry.put("x", *(await put(store, tmp_path, 3)), 1.0)
        await registry.put("x", *(await put(store, tmp_path, 4)), 1.0)
        await store.follow(registry.table)
        store.cache.drop((registry.table.entry("x").previous.digest, False))  # pyright: ignore[reportOptionalMemberAccess]
        with pytest.raises(ConfigError, match=r"cannot go back to version 3: the files in .* have changed"):
            await store.check_previous("x")

    async def put(store: AdapterStore, root: Path, seed: int) -> tuple[str, str]:
        place = make_adapter(bases("bert"), root / "put", ("a", "b"), seed=seed)
        version = await store.digest_of(str(place), [str(root)])
        return version.path, version.digest

    asyncio.run(work())
