"""How a replica keeps the adapter table as the registry has it."""

import asyncio
import logging
from collections.abc import Mapping
from typing import Protocol

from raylora.cluster.serve.table import Change, Table
from raylora.errors import NotReadyError

logger = logging.getLogger(__name__)

RETRY_S = 0.5


class Source(Protocol):
    """The registry: what is newer than `revision`, as soon as there is something; it hears what went wrong here."""

    async def sync(
        self, replica: str, revision: int, meters: str, fault: str, unloaded: Mapping[str, str]
    ) -> Table | list[Change]: ...


class Tables(Protocol):
    """Of `AdapterStore`: the table that is served, and how a newer one is taken over."""

    table: Table

    async def follow(self, table: Table) -> dict[str, str]: ...


class Replica(Protocol):
    """Of `Service`; `ready` from the first table on."""

    replica: str
    ready: bool

    @property
    def store(self) -> Tables: ...
    def meter_text(self) -> str: ...


async def follow(service: Replica, source: Source) -> None:
    """For ever, whatever fails: a lost registry comes back, and until then the last table holds. What cannot be taken
    over is tried again, and told to the registry, whose callers are waiting for it."""
    store, revision, fault = service.store, -1, ""
    unloaded: dict[str, str] = {}
    while True:
        try:
            changes = await source.sync(service.replica, revision, service.meter_text(), fault, unloaded)
            old = table = store.table
            if changes:
                table = changes if isinstance(changes, Table) else store.table.after(changes)
            if table.revision != store.table.revision or not service.ready:
                news = await store.follow(table)
                # the caller of an earlier change may still wait for another replica
                same = {name for name in unloaded if table.entries.get(name) == old.entries.get(name)}
                unloaded = {name: reason for name, reason in unloaded.items() if name in same} | news
            revision, fault, service.ready = table.revision, "", True
        except NotReadyError as error:
            logger.warning("%s", error)
            await asyncio.sleep(RETRY_S)
        except Exception as error:  # a follower that ends would leave a replica that serves an old table
            logger.exception("the adapter table cannot be followed")
            fault = f"{type(error).__name__}: {error}"
            await asyncio.sleep(RETRY_S)
