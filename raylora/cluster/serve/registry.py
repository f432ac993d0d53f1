"""The endpoint's one table of adapters, kept in its run folder; replicas follow it."""

import asyncio
import logging
import math
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from raylora.cluster.serve import adapter_folders as folders
from raylora.cluster.serve import base as bases
from raylora.cluster.serve.adapter_folders import absolute
from raylora.cluster.serve.table import Change, Missing, Outcome, Table
from raylora.cluster.serve.table_log import TableLog
from raylora.cluster.serve.table_start import configure, difference, is_configured
from raylora.cluster.storage.run_folder import SERVING, VERSIONS, RunFolder
from raylora.config import Job, ModelSection, parse
from raylora.errors import ConfigError, ModelError, NotReadyError
from raylora.model.lora.manifest import Manifest
from raylora.model.serving.adapter import read_files

logger = logging.getLogger(__name__)

KEPT = 1000  # changes that are kept apart, and in memory for replicas that are behind
WAIT_S = 2.0  # a replica's question is answered after this, changed or not: its meters come with the next
GONE_S = 8.0  # a replica not heard of for so long is not waited for
SETTLE_S = 30.0
LOOK_S = 5.0  # so often another registry's changes are looked for
HEARD_S = 2.0  # after its return a registry waits so long for the word of replicas that know it


@dataclass
class Seen:
    """A replica's last word; it is there while it asks, however long the answer takes, and `GONE_S` more."""

    revision: int
    meters: str
    fault: str
    unloaded: Mapping[str, str]
    until: float = math.inf


class Registry:
    """A Serve deployment of one replica. Killed, it comes back with the table as it was."""

    def __init__(self, tree: dict[str, Any], start: str | None = None) -> None:
        """Args:
        start: this start's own word, the same whenever Serve makes this replica anew; None = of no other.
        """
        job = parse(tree)
        self.folder = RunFolder(job)
        self.log = TableLog(self.folder.location, KEPT)
        self.recent: deque[Change] = deque(maxlen=KEPT)
        self.seen: dict[str, Seen] = {}
        self.changed = asyncio.Condition()
        self.began = self.looked = time.monotonic()
        manifests: dict[str, Manifest] = {}
        try:
            self.table = self.log.load()
            before = bases.load(self.folder.read_text(SERVING)) if self.folder.has(SERVING) else None
            self.is_back = before is not None and start == before.start
            if not self.is_back:
                manifests = self._configure(job)
        except OSError as error:
            raise ConfigError(f"`storage_path` {self.folder.storage_path} cannot be used: {error}") from None
        if before and self.is_back:
            self.decision = before
            return
        self.decision = bases.decide(job, self.table, start or uuid.uuid4().hex, before, manifests)
        self.folder.write_text(SERVING, self.decision.dump())

    def _configure(self, job: Job) -> dict[str, Manifest]:
        """Take over what the config names, as it is now; its files are kept, for what is written over in place can
        then still be gone back to.

        Returns:
            The manifests of the config's adapters that could be read, by the config's paths.
        """
        adapters = {name: absolute(path) for name, path in job.serve.adapters.items()}
        digests: dict[str, str] = {}
        manifests: dict[str, Manifest] = {}
        for name, path in adapters.items():
            try:
                with folders.local(folders.find(path)) as folder:
                    files = read_files(folder)
                    digests[name], manifests[job.serve.adapters[name]] = files.digest, files.manifest
            except (ModelError, OSError) as error:
                if not is_configured(self.table, name, path):
                    raise ModelError(f"adapter {path} cannot be read: {error}") from None
                logger.warning("adapter %s stays as the table has it: %s", name, error)
        while True:
            changes = difference(self.table, configure(self.table, adapters, digests, job.serve.default))
            if not changes or self.log.keep(self.table.after(changes), changes):
                break
            self._take(self.log.newer(self.table))
        self._take(changes)
        if self.log.written != self.table.revision:
            self.log.write(self.table)
        self._copy({adapters[name]: digest for name, digest in digests.items()})
        return manifests

    def _copy(self, digests: Mapping[str, str]) -> None:
        """Keep copies of what is in use of the files at these paths, and drop those that are in use no more.

        A change is kept before its files are copied, and the table is read after the copies were looked at: so what
        another registry, which starts at this moment, has copied is in that table, and stays.
        """
        versions = self.folder.location.inside(VERSIONS)
        copies = versions.files()
        self._take(self.log.newer(self.table))
        entries = self.table.entries.values()
        used = {each.digest for entry in entries for each in (entry.current, entry.previous, entry.canary) if each}
        for path, digest in digests.items():
            if digest in used and digest not in copies:
                with folders.local(folders.find(path)) as folder:
                    if read_files(folder).digest == digest:  # else they were written over since they were read
                        self.folder.upload(folder, f"{VERSIONS}/{digest}")
        for name in copies:
            if name.partition(".")[0] not in used:  # DIGEST.part becomes DIGEST
                versions.inside(name).delete()

    def _take(self, news: Table | list[Change]) -> None:
        """What another registry of this folder has changed."""
        if isinstance(news, Table):
            if news.revision > self.table.revision:
                self.table = news
                self.recent.clear()
            return
        new = [change for change in news if change.revision > self.table.revision]
        if new:
            self.table = self.table.after(new)
            self.recent.extend(new)

    async def _look(self) -> None:
        """Now and then, for what another registry has changed."""
        if time.monotonic() < self.looked + LOOK_S:
            return
        self.looked = time.monotonic()
        try:
            news = await asyncio.to_thread(self.log.newer, self.table)
        except OSError as error:
            logger.warning("changes of the adapter table cannot be looked for: %s", error)
            return
        async with self.changed:
            self._take(news)
            self.changed.notify_all()

    async def base(self) -> ModelSection:
        """What every replica loads."""
        return self.decision.base

    async def sync(
        self, replica: str, revision: int, meters: str, fault: str = "", unloaded: Mapping[str, str] | None = None
    ) -> Table | list[Change]:
        """What is newer than `revision`, which the replica now has, as soon as there is something; at the latest after
        a while, and then maybe nothing. The whole table where the replica has none, or one too old.

        Args:
            fault: why the replica could not take over what came after `revision`.
            unloaded: by name, what of `revision` it cannot load, and why.
        """
        seen = self.seen[replica] = Seen(revision, meters, fault, unloaded or {})
        try:
            return await self._news(revision)
        finally:
            seen.until = time.monotonic() + GONE_S

    async def _news(self, revision: int) -> Table | list[Change]:
        await self._look()
        async with self.changed:
            self.changed.notify_all()
            if revision == self.table.revision:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self.changed.wait_for(lambda: self.table.revision != revision), WAIT_S)
        if revision == self.table.revision:
            return []
        changes = [change for change in self.recent if change.revision > revision]
        # a replica that got less would ask again at once, for ever
        is_whole = [change.revision for change in changes] == list(range(revision + 1, self.table.revision + 1))
        return changes if changes and is_whole else self.table

    async def put(self, name: str, path: str, digest: str, traffic: float) -> Outcome:
        return await self._change(name, lambda table: table.put(name, path, digest, traffic))

    async def drop(self, name: str) -> Outcome:
        return await self._change(name, lambda table: table.drop(name))

    async def rollback(self, name: str) -> Outcome:
        return await self._change(name, lambda table: table.rollback(name))

    async def promote(self, name: str) -> Outcome:
        return await self._change(name, lambda table: table.promote(name))

    async def meters(self) -> dict[str, str]:
        """Text of every replica that is heard of."""
        return {name: seen.meters for name, seen in self._living().items()}

    async def _change(self, name: str, change: Callable[[Table], Table]) -> Outcome:
        """Write the changed table down, and answer once every replica has followed, or with those that have not."""
        async with self.changed:
            table = await self._kept(name, change)
            logger.info("adapter table: revision %d", table.revision)
            self.changed.notify_all()
            with suppress(TimeoutError):
                await asyncio.wait_for(self.changed.wait_for(lambda: self._all_follow(table.revision)), SETTLE_S)
            missing = self._missing(name, table.revision)
        for each in missing:
            logger.warning("replica %s: %s", each.replica, each.reason)
        return Outcome(table.entries.get(name), missing)

    async def _kept(self, name: str, change: Callable[[Table], Table]) -> Table:
        """Write down, then take over: what replicas are told outlives a crash. Where another registry has changed the
        table meanwhile, its change stays, and this one comes after it.

        Raises:
            NotReadyError: storage fails; nothing was changed, or the change will be found there.
        """
        while True:
            table = change(self.table)
            mine = [table.change_of(name)]
            try:
                if await asyncio.to_thread(self.log.keep, table, mine):
                    self._take(mine)
                    return self.table
                self._take(await asyncio.to_thread(self.log.newer, self.table))
            except OSError as error:
                raise NotReadyError(f"the change cannot be written to {self.folder.uri}: {error}") from None

    def _all_follow(self, revision: int) -> bool:
        known = not self.is_back or time.monotonic() > self.began + HEARD_S
        return known and all(seen.revision >= revision for seen in self._living().values())

    def _missing(self, adapter: str, revision: int) -> tuple[Missing, ...]:
        """Those that do not serve the change of this adapter; what they say of others is no part of it."""
        late, found = f"has not followed within {SETTLE_S:g} s", list[Missing]()
        for replica, seen in self._living().items():
            if seen.revision < revision:
                found.append(Missing(replica, f"{late}: {seen.fault}" if seen.fault else late))
            elif adapter in seen.unloaded:
                found.append(Missing(replica, seen.unloaded[adapter]))
        return tuple(found)

    def _living(self) -> dict[str, Seen]:
        now = time.monotonic()
        return {name: seen for name, seen in self.seen.items() if now < seen.until}
