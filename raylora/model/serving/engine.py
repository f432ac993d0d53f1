"""Continuous batching: whenever the model is free it runs what waits, across adapters, up to a token budget."""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch

from raylora.errors import OverloadError
from raylora.model.collator import Collator
from raylora.model.packing import NotPackable
from raylora.model.serving.adapter import ServedAdapter
from raylora.model.serving.base import ServedBase
from raylora.model.serving.cost import Cost, cheapest_for, measure
from raylora.model.serving.queue import LOOK_AHEAD, Waiting, choose
from raylora.model.tokens import TokenTable, padded_lengths

logger = logging.getLogger(__name__)


TURNS = 8


@dataclass(frozen=True)
class Batch:
    """One forward that has run, for the meters; `waited_s` per row from arrival to start."""

    rows: int
    tokens: int
    padded_tokens: int
    adapters: int
    run_s: float
    waited_s: Sequence[float]


@dataclass(eq=False)
class _Request:
    """All rows of one request, `lengths` of `padded_lengths`; `done` is called on its event loop, once."""

    adapter: ServedAdapter
    encoded: pa.Table
    lengths: np.ndarray
    done: "asyncio.Future[np.ndarray]"
    loop: asyncio.AbstractEventLoop
    arrived: float
    found: list[np.ndarray | None]
    missing: int

    def settle(self, error: Exception | None) -> None:
        if self.done.done():  # its caller has gone
            return
        if error:
            self.done.set_exception(error)
        else:
            self.done.set_result(np.stack([row for row in self.found if row is not None]))


@dataclass(frozen=True, eq=False)
class _Row(Waiting):
    request: _Request
    index: int


@dataclass
class Limits:
    """`max_batch_tokens` of one forward, padding included; more than the others may not wait."""

    max_batch_tokens: int
    max_queued_tokens: int
    max_queued_requests: int


@dataclass
class Load:
    """What waits or runs at this moment."""

    requests: int = 0
    tokens: int = 0


class Engine:
    """Runs rows of many adapters on one base, in a thread of its own; asked from event loops.

    Args:
        threads: of torch, for all but small batches; None = torch's default.
        observe: called after every forward, from the engine's thread.
    """

    def __init__(
        self, base: ServedBase, limits: Limits, threads: int | None, observe: Callable[[Batch], None] = lambda _: None
    ) -> None:
        self.base, self.limits, self.threads, self.observe = base, limits, threads, observe
        self.load = Load()
        self._rows: deque[_Row] = deque()
        self._wake = threading.Condition()
        self._open = True
        timed: Future[list[Cost]] = Future()
        self._thread = threading.Thread(target=self._work, args=(timed,), name="raylora-engine", daemon=True)
        self._thread.start()
        self.costs = timed.result()

    async def logits(self, adapter: ServedAdapter, encoded: pa.Table) -> np.ndarray:
        """[N, C] float32 of the N rows that `encode` gave. A cancelled caller's rows that wait are dropped.

        Raises:
            OverloadError: too much waits already.
        """
        lengths = padded_lengths(encoded)
        loop = asyncio.get_running_loop()
        request = _Request(
            adapter,
            encoded,
            lengths,
            loop.create_future(),
            loop,
            time.perf_counter(),
            [None] * len(lengths),
            len(lengths),
        )
        tokens = int(lengths.sum())
        self._admit(request, tokens)
        try:
            return await request.done
        finally:
            with self._wake:
                self.load.requests -= 1
                self.load.tokens -= tokens

    def _admit(self, request: _Request, tokens: int) -> None:
        spec = request.adapter.spec
        # pairs have a column more than single texts, and padding follows the tokenizer
        batch_key = (self.base.batch_key(request.adapter), *request.encoded.column_names, spec.pad_id, spec.pad_left)
        with self._wake:
            full = self.load.tokens + tokens > self.limits.max_queued_tokens and self.load.requests
            if full or self.load.requests >= self.limits.max_queued_requests:
                raise OverloadError(
                    f"{self.load.requests} requests of {self.load.tokens} tokens wait already. Try again in a second."
                )
            self.load.requests += 1
            self.load.tokens += tokens
            self._rows.extend(_Row(int(n), batch_key, request, i) for i, n in enumerate(request.lengths))
            self._wake.notify()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def close(self) -> None:
        """End the thread; rows that wait are not run."""
        with self._wake:
            self._open = False
            self._wake.notify()
        self._thread.join(timeout=10)

    def _work(self, timed: "Future[list[Cost]]") -> None:
        try:
            most = self.threads or torch.get_num_threads()
            each = sorted({1, most} if self.base.device.type == "cpu" else {most})
            timed.set_result(measure(self.base.time, each))
        except Exception as error:  # noqa: BLE001 - raised where the engine is made
            timed.set_exception(error)
            return
        while rows := self._take():
            self._run(rows)

    def _take(self) -> list[_Row]:
        """The next batch; waits while there is none. Empty at the end."""
        while self._wait():
            self._gather()
            with self._wake:
                self._drop_cancelled()
                if self._rows:
                    return self._chosen()
        return []

    def _wait(self) -> bool:
        """Until a row waits; False at the end."""
        with self._wake:
            self._drop_cancelled()
            while self._open and not self._rows:
                self._wake.wait()
                self._drop_cancelled()
            return self._open

    def _gather(self) -> None:
        """Let the event loop first take in what has come, and send off what was found.

        Beside it a forward is slow where cores are few, and the batch is the larger for it. It ends with the first
        turns of the loop that bring nothing new; a row waits at most as long for this as its batch will take.
        """
        start = time.perf_counter()
        while True:
            with self._wake:
                waiting = list(self._rows)
            tokens = sum(row.tokens for row in waiting)
            if not waiting or tokens >= self.limits.max_batch_tokens:
                return
            left = cheapest_for(tokens, self.costs).seconds(float(tokens)) - (time.perf_counter() - start)
            if left <= 0 or not _after_turns(waiting[-1].request.loop).wait(left) or len(self._rows) == len(waiting):
                return

    def _chosen(self) -> list[_Row]:
        head = [self._rows[i] for i in range(min(len(self._rows), LOOK_AHEAD))]
        chosen = choose(head, self.limits.max_batch_tokens, self.costs)
        taken = set(chosen)
        for _ in head:
            self._rows.popleft()
        self._rows.extendleft(row for i, row in reversed(list(enumerate(head))) if i not in taken)
        return [head[i] for i in chosen]

    def _drop_cancelled(self) -> None:
        while self._rows and self._rows[0].request.done.cancelled():
            self._rows.popleft()

    def _run(self, rows: Sequence[_Row]) -> None:
        rows = [row for row in rows if not row.request.done.done()]
        if not rows:
            return
        try:
            self._forward(rows)
        except Exception as error:
            own = {id(row.request): row.request for row in rows}
            if len(own) == 1:
                logger.exception("a batch failed")
                self._settle(own.values(), error)
                return
            if not isinstance(error, NotPackable):
                logger.warning("a mixed batch failed (%s): its requests run one by one", error)
            for request in own.values():  # a broken one fails alone
                self._run([row for row in rows if row.request is request])

    def _forward(self, rows: Sequence[_Row]) -> None:
        start = time.perf_counter()
        batch = _collate(rows)
        padded = batch["attention_mask"].numel()
        torch.set_num_threads(cheapest_for(padded, self.costs).threads)
        found = self.base.logits(batch, [row.request.adapter for row in rows])
        finished: list[_Request] = []
        for row, logits in zip(rows, found, strict=True):
            row.request.found[row.index] = logits
            row.request.missing -= 1
            if not row.request.missing:
                finished.append(row.request)
        self._settle(finished, None)
        tokens, run_s = int(batch["attention_mask"].sum()), time.perf_counter() - start
        adapters = len({id(row.request.adapter) for row in rows})
        self.observe(Batch(len(rows), tokens, padded, adapters, run_s, [start - row.request.arrived for row in rows]))

    def _settle(self, requests: Iterable[_Request], error: Exception | None) -> None:
        by_loop: dict[asyncio.AbstractEventLoop, list[_Request]] = {}
        for request in requests:
            by_loop.setdefault(request.loop, []).append(request)
        for loop, own in by_loop.items():
            loop.call_soon_threadsafe(_settle_all, own, error)


def _after_turns(loop: asyncio.AbstractEventLoop) -> threading.Event:
    """Set once the loop has gone round a few times; a request that has arrived takes as many to come here."""
    done = threading.Event()

    def turn(left: int) -> None:
        if left:
            loop.call_soon(turn, left - 1)
        else:
            done.set()

    try:
        loop.call_soon_threadsafe(turn, TURNS)
    except RuntimeError:  # the loop has ended
        done.set()
    return done


def _settle_all(requests: Sequence[_Request], error: Exception | None) -> None:
    for request in requests:
        request.settle(error)


def _collate(rows: Sequence[_Row]) -> dict[str, torch.Tensor]:
    """As in training: the same `Collator`, over the tables of several requests."""
    starts: dict[int, int] = {}
    chunks: list[pa.Table] = []
    count = 0
    for row in rows:
        if id(row.request) not in starts:
            starts[id(row.request)] = count
            chunks.append(row.request.encoded)
            count += row.request.encoded.num_rows
    places = np.array([starts[id(row.request)] + row.index for row in rows])
    lengths = np.array([row.tokens for row in rows], dtype=np.int32)
    table = TokenTable(chunks, places, np.zeros(len(rows), dtype=np.int64), lengths)
    return Collator(table, rows[0].request.adapter.spec)(np.arange(len(rows)))
