"""The registry of an endpoint's adapters as its replicas see it, without Ray: what travels, what is written."""

import asyncio
import json
import pickle
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from raylora.cluster.serve import follower as followers
from raylora.cluster.serve import registry as registries
from raylora.cluster.serve import table as tables
from raylora.cluster.serve import table_log
from raylora.cluster.serve.registry import Registry
from raylora.cluster.serve.table import Change, Entry, Missing, Table, Version
from raylora.cluster.serve.table_log import TableLog
from raylora.cluster.serve.table_start import configure
from raylora.cluster.storage.run_folder import ADAPTER_CHANGES, ADAPTERS, OLD_ADAPTER_CHANGES
from raylora.config import Job
from raylora.errors import ConfigError, UnknownAdapterError

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


async def end(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Python 3.11's `wait_for` loses a cancellation that comes at the moment of its result."""
    while any(not task.done() for task in tasks):
        for task in tasks:
            task.cancel()
        await asyncio.sleep(0.001)


def with_followers(registry: Registry, work: Callable[[], Awaitable[None]], count: int = 2) -> list[Follower]:
    followers = [Follower(registry, f"replica {i}") for i in range(count)]

    async def run() -> None:
        tasks = [asyncio.create_task(follower.follow()) for follower in followers]
        try:
            while any(follower.revision < 0 for follower in followers):
                await asyncio.sleep(0.001)
            await work()
        finally:
            await end(tasks)

    asyncio.run(run())
    return followers


def test_after_a_change_every_replica_has_it(tmp_path: Path) -> None:
    registry = Registry(tree(tmp_path))

    async def work() -> None:
        first, second = [await registry.put("x", path, digest, 1.0) for path, digest in (("/a", "d1"), ("/b", "d2"))]
        back = await registry.rollback("x")
        assert first.entry and second.entry and back.entry
        assert (first.entry.current.number, second.entry.current.number, back.entry.current.path) == (1, 2, "/a")
        assert not first.missing + second.missing + back.missing
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
    assert sum(path.stat().st_size for path in (tmp_path / "serve" / ADAPTER_CHANGES).iterdir()) < 20_000
    again = Registry(tree(tmp_path))
    assert again.table == registry.table
    assert again.table.entry("a3").current == Version(2, "/new/a3", "1" * 64)


def test_nothing_travels_where_nothing_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registries, "WAIT_S", 0.01)
    registry = Registry(tree(tmp_path))

    async def work() -> None:
        await asyncio.sleep(0.5)

    (follower,) = with_followers(registry, work, count=1)
    assert len(follower.received) > 2
    assert follower.received[1:] == [[]] * (len(follower.received) - 1)


def test_a_replica_that_is_far_behind_gets_the_whole_table(tmp_path: Path) -> None:
    registry = Registry(tree(tmp_path))

    async def work() -> None:
        for i in range(5):
            await registry.put("x", f"/{i}", "d", 1.0)
        changes = await registry.sync("r", 3, "")
        assert isinstance(changes, list)
        assert [change.revision for change in changes] == [4, 5]
        registry.recent.popleft()
        registry.recent.popleft()
        assert isinstance(await registry.sync("r", 1, ""), Table)
        assert isinstance(await registry.sync("r", 9, ""), Table)  # of an endpoint before this one

    with_followers(registry, work, count=0)


def test_changes_are_folded_in_now_and_then_and_no_crash_between_counts_one_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registries, "KEPT", 30)
    monkeypatch.setattr(table_log, "RETAINED", 20)
    write(tmp_path, crowded(31))
    registry = Registry(tree(tmp_path))
    folder = tmp_path / "serve"

    async def work() -> None:
        for i in range(31):
            await registry.put("a1", f"/{i}", "d", 1.0)

    with_followers(registry, work, count=0)
    assert json.loads((folder / ADAPTERS).read_text())["revision"] == 7 + 30
    assert registry.table.revision == 7 + 31
    assert sorted(int(path.stem) for path in (folder / ADAPTER_CHANGES).iterdir()) == list(range(18, 39))
    assert Registry(tree(tmp_path)).table == registry.table


def test_an_older_table_that_a_slow_registry_writes_last_loses_nothing(tmp_path: Path) -> None:
    registry = Registry(tree(tmp_path))
    old = (tmp_path / "serve" / ADAPTERS).read_bytes()

    async def work() -> None:
        for i in range(5):
            await registry.put(f"x{i}", "/a", "d", 1.0)

    with_followers(registry, work, count=0)
    (tmp_path / "serve" / ADAPTERS).write_bytes(old)
    assert Registry(tree(tmp_path)).table == registry.table


def test_a_table_that_lacks_changes_is_named_and_not_guessed(tmp_path: Path) -> None:
    registry = Registry(tree(tmp_path))

    async def work() -> None:
        for i in range(3):
            await registry.put(f"x{i}", "/a", "d", 1.0)

    with_followers(registry, work, count=0)
    (tmp_path / "serve" / ADAPTERS).unlink()
    assert Registry(tree(tmp_path)).table == registry.table  # all of its changes are there
    (tmp_path / "serve" / ADAPTERS).unlink()
    (tmp_path / "serve" / ADAPTER_CHANGES / "000000000001.jsonl").unlink()
    with pytest.raises(ConfigError, match=r"begins at change 2, adapters.json beside it ends at 0"):
        Registry(tree(tmp_path))


def test_a_table_of_earlier_code_is_read_with_its_changes(tmp_path: Path) -> None:
    table = Table().put("x", "/a", "d1")
    write(tmp_path, table)
    later = table.put("x", "/b", "d2")
    changes = tables.dump_changes([table.change_of("x"), later.change_of("x")])
    (tmp_path / "serve" / OLD_ADAPTER_CHANGES).write_text(changes)
    assert Registry(tree(tmp_path)).table == later
    (tmp_path / "serve" / "serving.json").unlink()
    assert Registry(tree(tmp_path)).table == later


@pytest.fixture(params=["local", "s3"])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A storage path that two clusters see."""
    return str(tmp_path) if request.param == "local" else request.getfixturevalue("s3_address")("tables/runs")


def test_two_registries_of_one_folder_lose_no_change_of_each_other(
    shared: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registries, "LOOK_S", 0.0)
    job = Job().replace({"storage_path": shared, "run_name": "serve", "serve.adapter_root": "."}).model_dump()
    old, new = Registry(job), Registry(job)
    each = 3 if "://" in shared else 10

    def change(registry: Registry, mark: str) -> None:
        async def work() -> None:
            for i in range(each):
                await registry.put(f"{mark}{i}", "/a", "d", 1.0)
                await registry.put("both", f"/{mark}{i}", "d", 1.0)

        asyncio.run(work())

    with ThreadPoolExecutor(2) as clusters:
        list(clusters.map(change, (old, new), ("a", "b")))
    asyncio.run(old.sync("r", -1, ""))
    asyncio.run(new.sync("r", -1, ""))
    assert old.table == new.table == Registry(job).table
    assert sorted(old.table.entries) == sorted([*(f"{mark}{i}" for mark in "ab" for i in range(each)), "both"])
    assert (old.table.revision, old.table.entry("both").current.number) == (4 * each, 2 * each)


def test_a_change_says_which_replica_does_not_serve_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registries, "SETTLE_S", 0.1)
    monkeypatch.setattr(registries, "WAIT_S", 0.01)
    registry = Registry(tree(tmp_path))

    async def work() -> None:
        await registry.sync("asleep", 0, "", "disk full")
        outcome = await registry.put("x", "/a", "d1", 1.0)
        assert outcome.missing == (Missing("asleep", "has not followed within 0.1 s: disk full"),)
        await registry.sync("asleep", 3, "", "", {"x": "adapter x version 2: it is broken"})
        outcome = await registry.put("x", "/b", "d2", 1.0)
        assert outcome.missing == (Missing("asleep", "adapter x version 2: it is broken"),)
        assert not (await registry.put("y", "/c", "d3", 1.0)).missing  # of x it says nothing
        outcome = await registry.put("x", "/c", "d3", 1.0)
        assert outcome.missing == (Missing("asleep", "has not followed within 0.1 s"),)

    with_followers(registry, work, count=1)


def test_a_replica_that_waits_for_its_answer_is_not_taken_for_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registries, "GONE_S", 0.05)
    monkeypatch.setattr(registries, "WAIT_S", 0.01)
    registry = Registry(tree(tmp_path))
    keep = registry.log.keep

    def slowly(table: Table, changes: Sequence[Change]) -> bool:
        time.sleep(0.2)  # storage that hangs
        return keep(table, changes)

    monkeypatch.setattr(registry.log, "keep", slowly)

    has: list[int] = []

    async def replica() -> None:
        for revision in (0, 1):
            has.append(revision)
            await registry.sync("r", revision, "")
            await asyncio.sleep(0.02)

    async def work() -> None:
        put = asyncio.create_task(registry.put("x", "/a", "d", 1.0))
        await asyncio.sleep(0.01)
        asking = asyncio.create_task(replica())
        assert not (await put).missing
        assert has == [0, 1]
        await asking

    asyncio.run(work())


class Stub:
    """A replica whose first take-over of a table fails with an error that nobody thought of."""

    replica, ready = "r", False

    def __init__(self) -> None:
        self.table, self.tries = Table(), 0

    @property
    def store(self) -> "Stub":
        return self

    def meter_text(self) -> str:
        return ""

    async def follow(self, table: Table) -> dict[str, str]:
        self.tries += 1
        if self.tries in (2, 3):
            raise ZeroDivisionError("nobody thought of this")
        self.table = table
        return {"x": "adapter x version 1: not on this node"} if table.revision == 1 else {}


def test_a_follower_survives_any_error_reports_it_and_catches_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(followers, "RETRY_S", 0.01)
    registry, replica = Registry(tree(tmp_path)), Stub()
    heard: list[str] = []
    unable: list[Mapping[str, str]] = []

    class Source:
        async def sync(
            self, replica: str, revision: int, meters: str, fault: str, unloaded: Mapping[str, str]
        ) -> Table | list[Change]:
            heard.append(fault)
            unable.append(unloaded)
            return await registry.sync(replica, revision, meters, fault, unloaded)

    async def work() -> None:
        while not replica.ready:
            await asyncio.sleep(0.001)
        first = await registry.put("x", "/a", "d1", 1.0)
        assert first.missing == (Missing("r", "adapter x version 1: not on this node"),)
        assert replica.table == registry.table
        assert not (await registry.put("y", "/b", "d2", 1.0)).missing
        assert (replica.table.revision, list(unable[-1])) == (2, ["x"])  # whoever put x may wait for others still
        assert not (await registry.put("x", "/c", "d3", 1.0)).missing

    async def run() -> None:
        task = asyncio.create_task(followers.follow(replica, Source()))
        try:
            await work()
            assert not task.done()
        finally:
            await end([task])

    asyncio.run(run())
    assert "ZeroDivisionError: nobody thought of this" in heard
    assert heard[-1] == ""


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
    started = configure(Table(), {"x": "/ü"}, {"x": "d1"}, "x")
    table = started.put("x", "/b", "d2", traffic=0.25)
    changes = [table.change_of("x"), table.drop("x").change_of("x"), table.promote("x").change_of("x")]
    assert tables.load_changes(tables.dump_changes(changes)) == changes
    assert changes[1].entry is None
    assert started.after(changes[:1]) == table


def test_what_http_changed_outlives_restarts_with_the_same_config(tmp_path: Path) -> None:
    folders = {name: str(save(tmp_path / name, "a/base")) for name in "abc"}
    job = Job().replace({"storage_path": str(tmp_path), "run_name": "serve", "serve.adapters": folders})
    job = job.replace({"serve.default": "a"})
    Registry(job.model_dump(), "1")
    save(tmp_path / "a", "a/base", "retrained, and worse")
    registry = Registry(job.model_dump(), "2")
    assert registry.table.entry("a").current.number == 2

    async def work() -> None:
        await registry.rollback("a")
        await registry.drop("b")
        await registry.promote("c")

    asyncio.run(work())
    for start in ("3", "4"):
        again = Registry(job.model_dump(), start).table
        assert again == registry.table
        assert (list(again.entries), again.default, again.entry("a").current.number) == (["c", "a"], "c", 1)
    copies = {path.name for path in (tmp_path / "serve" / "versions").iterdir()}
    assert copies == {v.digest for e in again.entries.values() for v in (e.current, e.previous) if v}
    bare = Registry(job.replace({"serve.default": None}).model_dump(), "5").table
    assert (bare.default, bare.configured_default) == ("c", None)
    assert Registry(job.model_dump(), "6").table.default == "a"  # the config says so anew


def test_a_replica_gets_what_a_start_changed_beside_another_registry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another registry keeps a change between this one's look at the table and its own change."""
    other = Registry(tree(tmp_path))
    seen = with_followers(other, lambda: _put(other, "a"), count=1)[0].table
    keep, rivals = TableLog.keep, [Registry(tree(tmp_path))]

    def late(self: TableLog, table: Table, changes: Sequence[Change]) -> bool:
        if rivals:
            asyncio.run(_put(rivals.pop(), "b"))
        return keep(self, table, changes)

    monkeypatch.setattr(TableLog, "keep", late)
    adapters = {"x": str(save(tmp_path / "x", "a/base"))}
    job = Job().replace({"storage_path": str(tmp_path), "run_name": "serve", "serve.adapters": adapters})
    registry = Registry(job.model_dump(), "new")
    assert seen.after(_changes(asyncio.run(registry.sync("r", 1, "")))) == registry.table
    assert list(registry.table.entries) == ["a", "b", "x"]
    registry.recent.pop()  # whatever else leaves a gap there
    assert asyncio.run(registry.sync("r", 1, "")) == registry.table


async def _put(registry: Registry, name: str) -> None:
    await registry.put(name, f"/{name}", "d", 1.0)


def _changes(news: Table | list[Change]) -> list[Change]:
    assert isinstance(news, list)
    return news


@pytest.mark.parametrize("moment", ["load", "keep"])
def test_a_registry_that_starts_deletes_no_copy_of_another_that_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """One starts as a whole after the other has read the table, or before the other's change is kept."""
    adapters = {"x": str(save(tmp_path / "x", "a/base"))}
    job = Job().replace({"storage_path": str(tmp_path), "run_name": "serve", "serve.adapters": adapters})
    load, keep = TableLog.load, TableLog.keep
    rivals = [job.model_dump() if moment == "load" else tree(tmp_path)]

    def load_early(self: TableLog) -> Table:
        table = load(self)
        if rivals:
            Registry(rivals.pop(), "rival")
        return table

    def keep_late(self: TableLog, table: Table, changes: Sequence[Change]) -> bool:
        if rivals:
            Registry(rivals.pop(), "rival")
        return keep(self, table, changes)

    monkeypatch.setattr(TableLog, moment, load_early if moment == "load" else keep_late)
    registry = Registry(tree(tmp_path) if moment == "load" else job.model_dump(), "mine")
    digest = registry.table.entry("x").current.digest
    copies = tmp_path / "serve" / "versions"
    assert [path.name for path in copies.iterdir()] == [digest]
    for name in (digest, "0" * 64):
        (copies / f"{name}.part").mkdir()  # on its way
    Registry(job.model_dump(), "next")
    assert {path.name for path in copies.iterdir()} == {digest, f"{digest}.part"}
