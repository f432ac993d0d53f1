"""The endpoint's one table of adapters, kept in its run folder; replicas follow it."""

import asyncio
import logging
import time
import uuid
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from raylora.cluster.serve import adapter_folders as folders
from raylora.cluster.serve import base as bases
from raylora.cluster.serve import table as tables
from raylora.cluster.serve.adapter_folders import absolute
from raylora.cluster.serve.table import Change, Entry, Table
from raylora.cluster.storage.run_folder import ADAPTER_CHANGES, ADAPTERS, SERVING, VERSIONS, RunFolder
from raylora.config import Job, ModelSection, parse
from raylora.errors import ModelError, RayLoraError
from raylora.model.serving.adapter import read_files

logger = logging.getLogger(__name__)

KEPT = 1000  # changes that are kept apart, and in memory for replicas that are behind
WAIT_S = 2.0  # a replica's question is answered after this, changed or not: its meters come with the next
GONE_S = 8.0  # a replica not heard of for so long is not waited for
SETTLE_S = 30.0


@dataclass
class Seen:
    """A replica's last word."""

    revision: int
    at: float
    meters: str


class Registry:
    """A Serve deployment of one replica. Killed, it comes back with the table as it was."""

    def __init__(self, tree: dict[str, Any], start: str | None = None) -> None:
        """Args:
        start: this start's own word, the same whenever Serve makes this replica anew; None = of no other.
        """
        job = parse(tree)
        self.folder = RunFolder(job)
        written = tables.load(self.folder.read_text(ADAPTERS)) if self.folder.has(ADAPTERS) else None
        self.table = written or Table()
        if self.folder.has(ADAPTER_CHANGES):
            self.table = self.table.after(tables.load_changes(self.folder.read_text(ADAPTER_CHANGES)))
        self.recent: deque[Change] = deque(maxlen=KEPT)
        self.apart: list[Change] = []
        self.seen: dict[str, Seen] = {}
        self.changed = asyncio.Condition()
        before = bases.load(self.folder.read_text(SERVING)) if self.folder.has(SERVING) else None
        self.is_back = before is not None and start == before.start
        if before and self.is_back:
            self.decision = before
            return
        self._configure(job)
        if self.table != written:
            self._write_whole()
        self.decision = bases.decide(job, self.table, start or uuid.uuid4().hex, before)
        self.folder.write_text(SERVING, self.decision.dump())

    def _configure(self, job: Job) -> None:
        """Take over what the config names, as it is now; its files are kept, for what is written over in place can
        then still be gone back to."""
        adapters = {name: absolute(path) for name, path in job.serve.adapters.items()}
        kept = self.folder.location.inside(VERSIONS).files()
        digests: dict[str, str] = {}
        for name, path in adapters.items():
            try:
                with folders.local(folders.find(path)) as folder:
                    digests[name] = read_files(folder).digest
                    if digests[name] not in kept:
                        self.folder.upload(folder, f"{VERSIONS}/{digests[name]}")
            except ModelError as error:
                if not tables.is_configured(self.table, name, path):
                    raise
                logger.warning("adapter %s stays as the table has it: %s", name, error)
        self.table = tables.configure(self.table, adapters, digests, job.serve.default)
        versions = [(entry.current, entry.previous, entry.canary) for entry in self.table.entries.values()]
        used = {version.digest for of_entry in versions for version in of_entry if version}
        for digest in kept.keys() - used:
            self.folder.location.inside(VERSIONS).inside(digest).delete()

    async def base(self) -> ModelSection:
        """What every replica loads."""
        return self.decision.base

    def _write_whole(self) -> None:
        """The changes are passed over by their revisions where a crash leaves them here."""
        self.folder.write_text(ADAPTERS, self.table.dump())
        self.apart = []
        if self.folder.has(ADAPTER_CHANGES):
            self.folder.write_text(ADAPTER_CHANGES, "")

    def _keep(self, table: Table, change: Change) -> None:
        """Write down, then take over: what replicas are told outlives a crash."""
        if len(table.entries) <= KEPT or len(self.apart) >= KEPT:
            old, self.table = self.table, table
            try:
                self._write_whole()
            except RayLoraError:
                self.table = old
                raise
        else:
            self.folder.write_text(ADAPTER_CHANGES, tables.dump_changes([*self.apart, change]))
            self.apart.append(change)
            self.table = table
        self.recent.append(change)

    async def sync(self, replica: str, revision: int, meters: str) -> Table | list[Change]:
        """What is newer than `revision`, which the replica now has, as soon as there is something; at the latest after
        a while, and then maybe nothing. The whole table where the replica has none, or one too old."""
        self.seen[replica] = Seen(revision, time.monotonic(), meters)
        async with self.changed:
            self.changed.notify_all()
            if revision == self.table.revision:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self.changed.wait_for(lambda: self.table.revision != revision), WAIT_S)
        if revision == self.table.revision:
            return []
        if self.recent and self.recent[0].revision <= revision + 1 <= self.table.revision:
            return [change for change in self.recent if change.revision > revision]
        return self.table

    async def put(self, name: str, path: str, digest: str, traffic: float) -> Entry:
        table = await self._change(name, lambda table: table.put(name, path, digest, traffic))
        return table.entry(name)

    async def drop(self, name: str) -> None:
        await self._change(name, lambda table: table.drop(name))

    async def rollback(self, name: str) -> Entry:
        table = await self._change(name, lambda table: table.rollback(name))
        return table.entry(name)

    async def promote(self, name: str) -> None:
        await self._change(name, lambda table: table.promote(name))

    async def meters(self) -> dict[str, str]:
        """Text of every replica that is heard of."""
        return {name: seen.meters for name, seen in self.seen.items() if self._lives(seen)}

    async def _change(self, name: str, change: Callable[[Table], Table]) -> Table:
        """Write the changed table down, and answer once every replica has followed."""
        async with self.changed:
            table = change(self.table)
            self._keep(table, table.change_of(name))
            logger.info("adapter table: revision %d", table.revision)
            self.changed.notify_all()
            try:
                await asyncio.wait_for(self.changed.wait_for(lambda: self._all_follow(table.revision)), SETTLE_S)
            except TimeoutError:
                logger.warning("not every replica follows revision %d after %g s", table.revision, SETTLE_S)
        return table

    def _all_follow(self, revision: int) -> bool:
        return all(seen.revision >= revision for seen in self.seen.values() if self._lives(seen))

    def _lives(self, seen: Seen) -> bool:
        return time.monotonic() - seen.at < GONE_S
