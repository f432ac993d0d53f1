"""What an endpoint's replica does for a request, whatever the protocol: checks, tokens, batch, answer."""

import asyncio
import random
import re
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from raylora.cluster.serve.adapter_store import AdapterStore, Found
from raylora.cluster.serve.meters import Meters
from raylora.cluster.serve.table import Outcome
from raylora.cluster.storage.filesystem import parent
from raylora.config import Job
from raylora.config.serve import NAME
from raylora.errors import ConfigError, DataError, NotReadyError, OverloadError, TooLargeError
from raylora.model.kinds import check_kind
from raylora.model.serving.engine import Engine
from raylora.model.tokens import Text, TokenizerSpec, encode
from raylora.tasks import AS_IT_IS, Prediction, Wish, task_of

INLINE_CHARACTERS = 4000  # about a millisecond of tokenizing; more goes to a thread
WAITING_BODIES = 16  # of the largest size, whose texts may wait for their tokens


class Changes(Protocol):
    """The one place where the table is changed (`registry`); answers when all replicas follow, or who does not."""

    async def put(self, name: str, path: str, digest: str, traffic: float) -> Outcome: ...
    async def drop(self, name: str) -> Outcome: ...
    async def rollback(self, name: str) -> Outcome: ...
    async def promote(self, name: str) -> Outcome: ...
    async def meters(self) -> dict[str, str]: ...


@dataclass(frozen=True)
class Answer:
    """One prediction an input, and the adapter that gave them."""

    found: Found
    predictions: list[Prediction]


class Service:
    def __init__(self, job: Job, replica: str, store: AdapterStore, engine: Engine, changes: Changes, meters: Meters):
        self.settings, self.replica = job.serve, replica
        self.store, self.engine, self.changes, self.meters = store, engine, changes, meters
        self.roots = _roots(job)
        self.ready = False
        self.requests, self.characters = 0, 0  # that wait for their adapter or their tokens; the engine counts the rest

    async def predict(self, name: str | None, inputs: Sequence[Text], wish: Wish = AS_IT_IS) -> Answer:
        """Raises:
        DataError, TooLargeError: the inputs.
        ConfigError: the wish is not of this adapter's task, or more than it promises.
        UnknownAdapterError, NotReadyError: the adapter.
        OverloadError: too much waits.
        """
        check_inputs(inputs, self.settings.max_inputs, self.settings.max_characters)
        with self._admitted(_characters(inputs)):
            found = await self.store.find(name, random.random())
            manifest = found.adapter.manifest
            task = task_of(manifest.problem_type)
            task.check(wish, manifest.learned)
            check_kind(manifest, inputs, "input")
            encoded = await _encode(inputs, found.adapter.spec)
        logits = await self.engine.logits(found.adapter, encoded)
        self.meters.count_inputs(found.name, len(inputs))
        return Answer(found, task.answers(logits, manifest.learned, wish))

    @contextmanager
    def _admitted(self, characters: int) -> Generator[None]:
        """The engine refuses by tokens, which are not known yet.

        Raises:
            OverloadError: too much waits to be tokenized.
        """
        full = self.requests and self.characters + characters > WAITING_BODIES * self.settings.max_body_bytes
        if full or self.requests >= self.settings.max_queued_requests:
            raise OverloadError(
                f"{self.requests} requests of {self.characters} characters wait for their tokens already. Try again in "
                "a second."
            )
        self.requests, self.characters = self.requests + 1, self.characters + characters
        try:
            yield
        finally:
            self.requests, self.characters = self.requests - 1, self.characters - characters

    def check_ready(self) -> None:
        """Raises:
        NotReadyError: the adapters are not known yet.
        """
        if not self.ready:
            raise NotReadyError("the adapter table has not come yet.")

    def check_name(self, name: str) -> None:
        """Raises:
        ConfigError: it cannot be an adapter's name.
        """
        if not re.fullmatch(NAME, name):
            raise ConfigError(
                f"an adapter's name is letters, digits, `.`, `_` and `-`, 128 at most, found '{name[:128]}'."
            )

    def meter_text(self) -> str:
        self.meters.ongoing_tokens.set(self.engine.load.tokens)
        self.meters.loaded.set(len(self.store.cache.held))
        self.meters.adapter_bytes.set(self.store.cache.size_bytes)
        return self.meters.text()

    async def put(self, name: str, path: str, traffic: float) -> Outcome:
        """What came of it, once all replicas have the new version, or those that lack it are known.

        Raises:
            ConfigError: the path is outside the roots.
            ModelError: no adapter there that fits the base.
        """
        if name not in self.store.table.entries and traffic < 1:
            raise ConfigError(f"`traffic` below 1 needs an adapter '{name}' to share it with; put it whole first.")
        version = await self.store.digest_of(path, self.roots)
        return await self.changes.put(name, version.path, version.digest, traffic)

    async def rollback(self, name: str) -> Outcome:
        """Raises:
        UnknownAdapterError: no such name.
        ConfigError: there is nothing to go back to, or its files are gone.
        """
        await self.store.check_previous(name)
        return await self.changes.rollback(name)

    async def promote(self, name: str) -> Outcome:
        await self.store.find(name, 1.0)  # it must be there and load; it may be the root's
        return await self.changes.promote(name)


def _roots(job: Job) -> list[str]:
    """Folders from which adapters may be put."""
    parents = map(parent, job.serve.adapters.values())
    return list(dict.fromkeys(filter(None, (job.serve.adapter_root, job.storage_path, *parents))))


def check_inputs(inputs: Sequence[Text], max_inputs: int, max_characters: int) -> None:
    """Raises:
    DataError: no inputs, a blank one, one that is not Unicode, single texts among pairs.
    TooLargeError: too many or too long.
    """
    if not inputs:
        raise DataError("`inputs` must hold at least one text.")
    if len(inputs) > max_inputs:
        raise TooLargeError(f"a request may hold {max_inputs} inputs (`serve.max_inputs`), found {len(inputs)}.")
    if len({isinstance(text, str) for text in inputs}) > 1:
        raise DataError("`inputs` must be all texts or all pairs of texts.")
    for i, text in enumerate(inputs):
        for part in (text,) if isinstance(text, str) else text:
            if len(part) > max_characters:
                raise TooLargeError(
                    f"input {i} has {len(part)} characters, {max_characters} are allowed (`serve.max_characters`)."
                )
            if not part.strip():
                raise DataError(f"input {i} is blank.")
            if not part.isascii() and any("\ud800" <= letter <= "\udfff" for letter in part):
                raise DataError(f"input {i} is not Unicode text: it holds half of a surrogate pair.")


def _characters(inputs: Sequence[Text]) -> int:
    return sum(len(text) if isinstance(text, str) else len(text[0]) + len(text[1]) for text in inputs)


async def _encode(inputs: Sequence[Text], spec: TokenizerSpec) -> pa.Table:
    if _characters(inputs) <= INLINE_CHARACTERS:
        return encode(inputs, spec)
    return await asyncio.to_thread(encode, inputs, spec)
