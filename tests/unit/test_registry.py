"""The registry of an endpoint's adapters as its replicas see it, without Ray: what travels, what is written."""

import asyncio
import json
import pickle
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from raylora.cluster.serve import registry as registries
from raylora.cluster.serve import table as tables
from raylora.cluster.serve.registry import Registry
from raylora.cluster.serve.table import Change, Entry, Table, Version
from raylora.cluster.storage.run_folder import ADAPTER_CHANGES, ADAPTERS
from raylora.config import Job
from raylora.errors import UnknownAdapterError

MANY = 20_000


def tree(storage: Path) -> dict[str, Any]:
    return Job().replace({"storage_path": str(storage), "run_name": "serve", "serve.adapter_root": "."}).model_dump()


def crowded(count: int) -> Table:
    return Table(7, None, {f"a{i}": Entry(Version(1, f"/adapters/a{i}", "0" * 64)) for i in range(count)})


def write(storage: Path, table: Table) -> None:
    (storage / "serve").mkdir(parents=True, exist_ok=True)
    (storage / "serve" / ADAPTERS).write_text(table.dump())


class Follower:
    """A replica's part: asks, takes over, says what it has with the next question."""

    def __init__(self, registry: Registry, name: str) -> None:
        self.registry, self.name, self.table, self.revision = registry, name, Table(), -1
        self.received: list[Table | list[Change]] = []

    async def follow(self) -> None:
        while True:
            news = await self.registry.sync(self.name, self.revision, "")
            self.received.append(news)
            self.table = news if isinstance(news, Table) else self.table.after(news)
            self.revision = self.table.revision


def with_followers(registry: Registry, work: Callable[[], Awaitable[None]], count: int = 2) -> list[Follower]:
    followers = [Follower(registry, f"replica {i}") for i in range(count)]

    async def run() -> None:
        tasks = [asyncio.create_task(follower.follow()) for follower in followers]
        while any(follower.revision < 0 for follower in followers):
            await asyncio.sleep(0.001)
        await work()
        for task in tasks:
            task.cancel()

    asyncio.run(run())
    return followers


def test_after_a_change_every_replica_has_it(tmp_path: Path) -> None:
    registry = Registry(tree(tmp_path))

    async def work() -> None:
        assert (await registry.put("x", "/a", "d1", 1.0)).current.number == 1
        assert (await registry.put("x", "/b", "d2", 1.0)).current.number == 2
        assert (await registry.rollback("x")).current.path == "/a"
        await registry.put("y", "/c", "d3", 1.0)
        await registry.promote("y")
        await registry.drop("x")
        with pytest.raises(UnknownAdapterError):
            await registry.drop("x")

    for follower in with_followers(registry, work):
        assert follower.table == registry.table
        assert (list(follower.table.entries), follower.table.default, follower.revision) == (["y"], "y", 6)
    assert Registry(tree(tmp_path)).table == registry.table


def test_a_change_of_a_crowded_table_travels_and_is_written_alone(tmp_path: Path) -> None:
    write(tmp_path, crowded(MANY))
    registry = Registry(tree(tmp_path))
    before = (tmp_path / "serve" / ADAPTERS).read_bytes()

    async def work() -> None:
        for i in range(20):
            await registry.put(f"a{i}", f"/new/a{i}", "1" * 64, 1.0)

    for follower in with_followers(registry, work):
        first, *later = follower.received
        assert isinstance(first, Table)
        assert follower.table == registry.table
        assert len(pickle.dumps(later)) < 20_000 < len(pickle.dumps(first))
    assert (tmp_path / "serve" / ADAPTERS).read_bytes() == before
    assert (tmp_path / "serve" / ADAPTER_CHANGES).stat().st_size < 20_000
    again = Registry(tree(tmp_path))
    assert again.table == registry.table
    assert again.table.entry("a3").current == Version(2, "/new/a3", "1" * 64)


def test_nothing_travels_where_nothing_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registries, "WAIT_S", 0.01)
    registry = Registry(tree(tmp_path))

    async def work() -> None:
        await asyncio.sleep(0.05)

    (follower,) = with_followers(registry, work, count=1)
    assert len(follower.received) > 2
    assert follower.received[1:] == [[]] * (len(follower.received) - 1)


def test_a_replica_that_is_far_behind_gets_the_whole_table(tmp_path: Path) -> None:
    registry = Registry(tree(tmp_path))

    async def work() -> None:
        for i in range(5):
            await registry.put("x", f"/{i}", "d", 1.0)
        assert [change.revision for change in await registry.sync("r", 3, "")] == [4, 5]
        registry.recent.popleft()
        registry.recent.popleft()
        assert isinstance(await registry.sync("r", 1, ""), Table)
        assert isinstance(await registry.sync("r", 9, ""), Table)  # of an endpoint before this one

    with_followers(registry, work, count=0)


def test_changes_are_folded_in_now_and_then_and_no_crash_between_counts_one_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registries, "KEPT", 30)
    write(tmp_path, crowded(31))
    registry = Registry(tree(tmp_path))
    folder = tmp_path / "serve"

    async def work() -> None:
        for i in range(31):
            await registry.put("a1", f"/{i}", "d", 1.0)
            if i == 29:
                (tmp_path / "changes").write_bytes((folder / ADAPTER_CHANGES).read_bytes())

    with_followers(registry, work, count=0)
    assert json.loads((folder / ADAPTERS).read_text())["revision"] == registry.table.revision == 7 + 31
    assert (folder / ADAPTER_CHANGES).read_text() == ""
    (folder / ADAPTER_CHANGES).write_bytes((tmp_path / "changes").read_bytes())  # killed before it was emptied
    assert Registry(tree(tmp_path)).table == registry.table


def save(folder: Path, base: str, weights: str = "weights") -> Path:
    """The files of an adapter of this base, as far as a registry reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    manifest = {"labels": ["a", "b"], "base_model": base, "revision": None, "base_digest": "0" * 64, "max_length": 64}
    (folder / "raylora.json").write_text(json.dumps(manifest))
    (folder / "adapter_config.json").write_text("{}")
    (folder / "adapter_model.safetensors").write_text(weights)
    return folder


def base_of(registry: Registry) -> str:
    return asyncio.run(registry.base()).base_model


def test_a_new_run_in_the_root_changes_no_replicas_base(tmp_path: Path) -> None:
    job = Job().replace({"storage_path": str(tmp_path), "run_name": "serve", "serve.adapter_root": str(tmp_path)})
    save(tmp_path / "m", "first/base")
    assert base_of(Registry(job.model_dump(), "a")) == "first/base"
    save(tmp_path / "a-newer-one", "other/base")
    assert base_of(Registry(job.model_dump(), "a")) == "first/base"  # killed, and made anew
    assert base_of(Registry(job.model_dump(), "b")) == "first/base"  # another start
    job = job.replace({"serve.adapters": {"x": str(tmp_path / "a-newer-one")}})
    assert base_of(Registry(job.model_dump(), "c")) == "other/base"  # the config says so


def test_a_start_serves_what_the_configs_path_holds_and_a_registry_that_comes_back_what_it_served(
    tmp_path: Path,
) -> None:
    folder = save(tmp_path / "x", "a/base")
    job = Job().replace({"storage_path": str(tmp_path), "run_name": "serve", "serve.adapters": {"x": str(folder)}})
    first = Registry(job.model_dump(), "a").table
    save(folder, "a/base", "retrained")
    assert Registry(job.model_dump(), "a").table == first
    entry = Registry(job.model_dump(), "b").table.entry("x")
    assert (entry.current.number, entry.previous) == (2, first.entry("x").current)
    assert {path.name for path in (tmp_path / "serve" / "versions").iterdir()} == {
        entry.current.digest,
        first.entry("x").current.digest,
    }
    save(folder, "a/base", "once more")
    Registry(job.model_dump(), "c")
    assert first.entry("x").current.digest not in {p.name for p in (tmp_path / "serve" / "versions").iterdir()}


def test_changes_read_back_as_they_were_written() -> None:
    table = Table().put("x", "/ü", "d1", configured="/ü").put("x", "/b", "d2", traffic=0.25)
    changes = [table.change_of("x"), table.drop("x").change_of("x"), table.promote("x").change_of("x")]
    assert tables.load_changes(tables.dump_changes(changes)) == changes
    assert changes[1].entry is None
    assert Table().put("x", "/ü", "d1", configured="/ü").after(changes[:1]) == table
