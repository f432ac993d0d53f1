"""The adapters that one replica holds: found by name, loaded when first asked for, dropped when room is short."""

import asyncio
import logging
import re
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from itertools import chain

from raylora.cluster.serve import adapter_folders as folders
from raylora.cluster.serve.adapter_folders import AdapterLocation
from raylora.cluster.serve.table import Table, Version
from raylora.cluster.storage.filesystem import inside
from raylora.config.explain import close_to
from raylora.config.serve import NAME
from raylora.errors import ConfigError, ModelError, NotReadyError, UnknownAdapterError
from raylora.model.serving.adapter import ServedAdapter
from raylora.model.serving.base import ServedBase
from raylora.model.threads import run_in_thread

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Found:
    """The adapter of a request: its name, its version as a word, and itself."""

    name: str
    version: str
    adapter: ServedAdapter


class AdapterCache:
    """Adapters in memory, the least recently used dropped beyond `max_bytes`. The newest always stays."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes, self.size_bytes = max_bytes, 0
        self.held: OrderedDict[Hashable, ServedAdapter] = OrderedDict()

    def get(self, key: Hashable) -> ServedAdapter | None:
        if key in self.held:
            self.held.move_to_end(key)
        return self.held.get(key)

    def add(self, key: Hashable, adapter: ServedAdapter) -> None:
        self.drop(key)
        self.held[key] = adapter
        self.size_bytes += adapter.size_bytes
        while self.size_bytes > self.max_bytes and len(self.held) > 1:
            self.drop(next(iter(self.held)))

    def drop(self, key: Hashable) -> None:
        if key in self.held:
            self.size_bytes -= self.held.pop(key).size_bytes


class AdapterStore:
    """Adapters by name, from the table and from `root`. Used from one event loop.

    Args:
        root: folder whose folders are adapters, by name; the table's names come first.
        own: name of a folder in `root` that is the endpoint's own, and no adapter.
        merge: whether an adapter that is the only one may be merged into a base of its own.
        kept: folder of versions by their digest, for those whose files were written over or moved.
    """

    def __init__(
        self, base: ServedBase, cache_bytes: int, root: str | None, own: str | None, merge: bool, kept: str
    ) -> None:
        self.kept = kept
        self.base, self.root, self.own, self.merge = base, root, own, merge and root is None
        self.table = Table()
        self.cache = AdapterCache(cache_bytes)
        self.rooted: dict[str, AdapterLocation] = {}
        self._loading: dict[Hashable, asyncio.Future[ServedAdapter]] = {}
        self._loads = asyncio.Semaphore(2)

    async def find(self, name: str | None, draw: float) -> Found:
        """The adapter of a request that names `name`, or none; `draw` in [0, 1) decides between canary and current.

        Raises:
            UnknownAdapterError: no such adapter, or none is named and there is no default.
            NotReadyError: it cannot be loaded; the reason.
        """
        name = name or self.table.default
        if name is None:
            raise UnknownAdapterError(
                "no adapter is named, and there is no default. GET /adapters lists what there is."
            )
        if name in self.table.entries:
            version = self.table.entries[name].pick(draw)
            return Found(name, str(version.number), await self._versioned(version))
        place = await self._place(name)
        adapter = await self._held((place.path, place.state), lambda: self._read(place, merged=False))
        return Found(name, adapter.digest[:12], adapter)

    def known(self, name: str) -> ServedAdapter | None:
        """Of this name, if it is in memory."""
        if name in self.table.entries:
            return self.cache.held.get(self._key(self.table.entries[name].current))
        place = self.rooted.get(name)
        return self.cache.held.get((place.path, place.state)) if place else None

    async def follow(self, table: Table) -> dict[str, str]:
        """Take over a newer table. What is in use is loaded first, so that no request waits for a swap.

        Returns:
            Names of which a version cannot be loaded here, and why; its requests will say so.
        """
        faults: dict[str, str] = {}
        old, same_merge = self.table, self._merges(self.table) == self._merges(table)
        for name, entry in table.entries.items():
            before = old.entries.get(name)
            # the same object: of 100,000 entries the one that changed is found in 5 ms
            if before is None or (before is entry and same_merge) or self._key(before.current) not in self.cache.held:
                continue
            for version in filter(None, (entry.current, entry.canary)):
                if not same_merge or version not in (before.current, before.canary):
                    faults |= await self._prefetch(name, version, table)
        self.table = table
        if not self._merges(table):
            for key in [key for key, adapter in self.cache.held.items() if key == (adapter.digest, True)]:
                self.cache.drop(key)
        return faults

    async def _prefetch(self, name: str, version: Version, table: Table) -> dict[str, str]:
        try:
            await self._versioned(version, table)
        except NotReadyError as error:
            return {name: f"adapter {name} version {version.number}: {error}"}
        return {}

    async def watch(self) -> None:
        """Look once at the loaded adapters of the root; a changed one is loaded before it replaces the old."""
        for name, old in list(self.rooted.items()):
            try:
                new = await asyncio.to_thread(lambda name=name: self._look(name))
            except ConfigError as error:  # a link out of the root now stands in its place
                logger.warning("adapter %s is served no more: %s", name, error)
                new = None
            if new is None:
                self.rooted.pop(name, None)
                self.cache.drop((old.path, old.state))
            elif new != old:
                try:
                    await self._held((new.path, new.state), lambda new=new: self._read(new, merged=False))
                except NotReadyError as error:
                    logger.warning("adapter %s stays as it was: %s", name, error)
                    continue
                self.rooted[name] = new
                self.cache.drop((old.path, old.state))

    async def names(self) -> list[str]:
        """All names in order, those of the table first: the table's own order is each replica's, by its changes."""
        root, known = self.root, {*self.table.entries, self.own}
        rooted = (
            await asyncio.to_thread(lambda: [n for n in folders.names(root) if re.fullmatch(NAME, n)]) if root else []
        )
        return [*sorted(self.table.entries), *(name for name in rooted if name not in known)]

    async def check_previous(self, name: str) -> None:
        """Raises:
        ConfigError: the version to which `name` would go back cannot be loaded any more.
        """
        entry = self.table.entries.get(name)
        if entry is None or entry.canary or entry.previous is None:
            return  # the table itself has words for these
        try:
            await self._versioned(entry.previous)
        except NotReadyError as error:
            raise ConfigError(f"adapter '{name}' cannot go back to version {entry.previous.number}: {error}") from None

    async def is_rooted(self, name: str) -> bool:
        """Whether the root has an adapter of this name."""
        return bool(self.root and re.fullmatch(NAME, name) and await asyncio.to_thread(lambda: self._look(name)))

    async def digest_of(self, path: str, roots: Sequence[str]) -> Version:
        """A folder's digest, once it has loaded on this base: version 0 of it, its `path` that of the adapter itself.

        Raises:
            ConfigError: it is in none of the roots.
            ModelError: it holds no adapter, a broken one, or one of another base.
        """
        place = folders.there(path, await asyncio.to_thread(lambda: folders.adapter_inside(path, roots)))
        adapter = await self._load(lambda: self._read(place, merged=False))
        self.cache.add((adapter.digest, False), adapter)
        return Version(0, place.path, adapter.digest)

    async def _versioned(self, version: Version, table: Table | None = None) -> ServedAdapter:
        merged = self._merges(table or self.table)
        return await self._held((version.digest, merged), lambda: self._checked(version, merged))

    def _key(self, version: Version) -> Hashable:
        return (version.digest, self._merges(self.table))

    def _merges(self, table: Table) -> bool:
        return self.merge and len(table.entries) == 1 and all(entry.canary is None for entry in table.entries.values())

    def _checked(self, version: Version, merged: bool) -> ServedAdapter:
        try:
            return self._of_digest(version, folders.find(version.path), merged)
        except ModelError:
            copy = folders.adapter_in(inside(self.kept, version.digest))
            if copy is None:
                raise
        return self._of_digest(version, copy, merged)

    def _of_digest(self, version: Version, place: AdapterLocation, merged: bool) -> ServedAdapter:
        adapter = self._read(place, merged)
        if adapter.digest != version.digest:
            raise ModelError(
                f"the files in {place.path} have changed since they were put (sha256 {adapter.digest[:12]}…, then "
                f"{version.digest[:12]}…). PUT the adapter again."
            )
        return adapter

    def _read(self, place: AdapterLocation, merged: bool) -> ServedAdapter:
        with folders.local(place) as folder:
            return self.base.load(folder, merged)

    async def _place(self, name: str) -> AdapterLocation:
        place = self.rooted.get(name)
        if place is None and self.root and re.fullmatch(NAME, name):
            place = await asyncio.to_thread(lambda: self._look(name))
        if place is None:
            raise UnknownAdapterError(
                f"no adapter '{name[:128]}'{close_to(name, chain(self.table.entries, self.rooted))}"
            )
        self.rooted[name] = place
        return place

    def _look(self, name: str) -> AdapterLocation | None:
        assert self.root, "asked for where there is a root"
        return folders.adapter_inside(inside(self.root, name), [self.root])

    async def _held(self, key: Hashable, load: Callable[[], ServedAdapter]) -> ServedAdapter:
        """From memory, or loaded; requests that ask at the same time wait for one load.

        Raises:
            NotReadyError: it cannot be loaded.
        """
        held = self.cache.get(key)
        if held:
            return held
        if key not in self._loading:
            self._loading[key] = asyncio.ensure_future(self._load(load))
            self._loading[key].add_done_callback(lambda done: self._loaded(key, done))
        try:
            return await asyncio.shield(self._loading[key])
        except (ModelError, OSError) as error:
            raise NotReadyError(str(error)) from None

    def _loaded(self, key: Hashable, done: "asyncio.Future[ServedAdapter]") -> None:
        del self._loading[key]
        if not done.cancelled() and done.exception() is None:
            self.cache.add(key, done.result())

    async def _load(self, load: Callable[[], ServedAdapter]) -> ServedAdapter:
        async with self._loads:
            return await asyncio.wrap_future(run_in_thread(load))
