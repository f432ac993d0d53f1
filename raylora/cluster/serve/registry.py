"""The endpoint's one table of adapters, kept in its run folder; replicas follow it."""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from raylora.cluster.serve import folders
from raylora.cluster.serve import table as tables
from raylora.cluster.serve.folders import absolute
from raylora.cluster.serve.table import Table
from raylora.cluster.storage import RunFolder
from raylora.config import parse
from raylora.model.serving.adapter import read_files

logger = logging.getLogger(__name__)

FILE = "adapters.json"
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

    def __init__(self, tree: dict[str, Any]) -> None:
        job = parse(tree)
        self.folder = RunFolder(job)
        self.table = tables.load(self.folder.read_text(FILE)) if self.folder.has(FILE) else Table()
        self.seen: dict[str, Seen] = {}
        self.changed = asyncio.Condition()
        adapters = {name: absolute(path) for name, path in job.serve.adapters.items()}
        new = {n: path for n, path in adapters.items() if not tables.is_configured(self.table, n, path)}
        digests: dict[str, str] = {}
        for name, path in new.items():
            with folders.local(folders.find(path)) as folder:
                digests[name] = read_files(folder).digest
        self._keep(tables.configure(self.table, adapters, digests, job.serve.default))

    def _keep(self, table: Table) -> None:
        if table != self.table or not self.folder.has(FILE):
            self.folder.write_text(FILE, table.dump())
        self.table = table

    async def sync(self, replica: str, revision: int, meters: str) -> Table:
        """The table as soon as it is newer than `revision`, which the replica now has; at the latest after a while."""
        self.seen[replica] = Seen(revision, time.monotonic(), meters)
        async with self.changed:
            self.changed.notify_all()
            if revision == self.table.revision:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self.changed.wait_for(lambda: self.table.revision != revision), WAIT_S)
        return self.table

    async def put(self, name: str, path: str, digest: str, traffic: float) -> Table:
        return await self._change(lambda table: table.put(name, path, digest, traffic))

    async def drop(self, name: str) -> Table:
        return await self._change(lambda table: table.drop(name))

    async def rollback(self, name: str) -> Table:
        return await self._change(lambda table: table.rollback(name))

    async def promote(self, name: str) -> Table:
        return await self._change(lambda table: table.promote(name))

    async def meters(self) -> dict[str, str]:
        """Text of every replica that is heard of."""
        return {name: seen.meters for name, seen in self.seen.items() if self._lives(seen)}

    async def _change(self, change: Callable[[Table], Table]) -> Table:
        """Write the changed table down, and answer once every replica has followed."""
        async with self.changed:
            table = change(self.table)
            self._keep(table)
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
