"""`bench scale`: what one unit costs those parts of a cluster that there is only one of. Without Ray, in a minute."""

import asyncio
import pickle
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from raylora.bench.verdict import cpu
from raylora.cluster.serve import adapter_folders as folders
from raylora.cluster.serve.meters import TOLD_APART, Meters
from raylora.cluster.serve.registry import KEPT, Registry
from raylora.cluster.serve.table import Entry, Table, Version
from raylora.cluster.storage.run_folder import ADAPTER_CHANGES, ADAPTERS
from raylora.cluster.tune.broker import Broker, Report, TrialRequest
from raylora.config import Job
from raylora.records import Say

EPOCHS, PACK = 3, 8
DIGEST = "0" * 64


def bench(adapters: int, workers: int, say: Say) -> None:
    """Print the unit costs of a table of so many adapters, and of a sweep of so many workers."""
    say(f"cpu        {cpu()}")
    with tempfile.TemporaryDirectory() as scratch:
        table = measure_table(adapters, Path(scratch))
    say(f"table      {adapters:,} adapters: {table.start_s:.2f} s to start, {table.whole_bytes / 1e6:.1f} MB for a new")
    say(f"           replica; a change: {table.put_ms:.1f} ms, {table.change_bytes:,.0f} bytes to each replica and")
    say(f"           {table.written_bytes:,.0f} to disk")
    with tempfile.TemporaryDirectory() as scratch:
        say(f"root       {adapters:,} folders: {measure_root(adapters, Path(scratch)):.2f} s to list, on local disk")
    say(f"meters     {TOLD_APART:,} adapters: {1000 * measure_meters():.0f} ms of a replica every two seconds")
    for count in (max(1, workers // 8), workers):
        rate = measure_broker(count)
        say(f"broker      {count} workers, {PACK} trials each: {rate:,.0f} reports/s, Ray's part left out")


@dataclass(frozen=True)
class TableCosts:
    """Of one endpoint's table of adapters. `put_ms` is of a change, until the followers have it."""

    start_s: float
    whole_bytes: int
    put_ms: float
    change_bytes: float
    written_bytes: float


def measure_table(adapters: int, scratch: Path, changes: int = 100, replicas: int = 2) -> TableCosts:
    # not of s3://: a start looks into some for the base, and would wait for a network
    entries = {f"a{i:06d}": Entry(Version(1, f"/bucket/adapters/a{i:06d}", DIGEST)) for i in range(adapters)}
    folder = scratch / "serve"
    folder.mkdir()
    (folder / ADAPTERS).write_text(Table(1, None, entries).dump())
    job = Job().replace({"storage_path": str(scratch), "run_name": "serve", "serve.adapter_root": str(scratch)})
    start = time.perf_counter()
    registry = Registry(job.model_dump())
    start_s = time.perf_counter() - start
    return asyncio.run(_change(registry, folder, start_s, list(entries), changes, replicas))


async def _change(
    registry: Registry, folder: Path, start_s: float, names: list[str], changes: int, replicas: int
) -> TableCosts:
    received = 0

    async def follow(name: str) -> None:
        nonlocal received
        revision = registry.table.revision
        while True:
            changes = await registry.sync(name, revision, "")
            received += len(pickle.dumps(changes)) if changes else 0
            revision = registry.table.revision

    whole = len(pickle.dumps(await registry.sync("new", -1, "")))
    registry.seen.clear()
    followers = [asyncio.create_task(follow(f"replica {i}")) for i in range(replicas)]
    await asyncio.sleep(0)
    start = time.perf_counter()
    for i in range(changes):
        await registry.put(names[i % len(names)], "s3://bucket/new", DIGEST, 1.0)
    taken = time.perf_counter() - start
    for follower in followers:
        follower.cancel()
        with suppress(asyncio.CancelledError):
            await follower
    written = sum(path.stat().st_size for path in (folder / ADAPTER_CHANGES).iterdir()) / changes
    if len(names) <= KEPT:
        written += (folder / ADAPTERS).stat().st_size
    return TableCosts(start_s, whole, 1000 * taken / changes, received / changes / replicas, written)


def measure_root(adapters: int, scratch: Path) -> float:
    """Seconds to list a root of so many folders."""
    for i in range(adapters):
        (scratch / f"a{i:06d}").mkdir()
    start = time.perf_counter()
    assert len(folders.names(str(scratch))) == adapters, "all were made"
    return time.perf_counter() - start


def measure_meters() -> float:
    """Seconds to write the meters of a replica on which every adapter that is told apart was asked."""
    meters = Meters()
    for i in range(TOLD_APART):
        meters.count_inputs(f"a{i:06d}", 1)
        meters.count_request(f"a{i:06d}", 200, 0.01)
    start = time.perf_counter()
    meters.text()
    return time.perf_counter() - start


def measure_broker(workers: int, rounds: int = 2) -> float:
    """Reports a second that cross a sweep's broker, with packs of trials and workers that do nothing else."""
    return asyncio.run(_cross(workers, rounds * workers * PACK))


async def _cross(workers: int, trials: int) -> float:
    broker, slots = Broker(trials, workers * PACK, workers), asyncio.Semaphore(workers * PACK)
    start = time.perf_counter()
    tasks = [asyncio.create_task(_work(broker, f"worker {i}")) for i in range(workers)]
    await asyncio.gather(*(_try(broker, f"trial {i}", slots) for i in range(trials)))
    await broker.close()
    await asyncio.gather(*tasks)
    return trials * EPOCHS / (time.perf_counter() - start)


async def _work(broker: Broker, name: str) -> None:
    while (requests := await broker.take(name, None, PACK, 20.0)) is not None:
        attempt_ids = [request.attempt_id for request in requests]
        for epoch in range(1, EPOCHS + 1):
            last = epoch == EPOCHS
            await broker.post({attempt_id: Report({"epoch": epoch}, finished=last) for attempt_id in attempt_ids})
            attempt_ids = [] if last else await broker.decisions(attempt_ids, 120.0)


async def _try(broker: Broker, trial: str, slots: asyncio.Semaphore) -> None:
    async with slots:
        attempt_id = await broker.submit(TrialRequest(trial, {}, "key", PACK, trial))
        while not (await broker.next(attempt_id)).finished:
            pass
        await broker.leave(attempt_id)
