"""A bounded load on a server of this machine: `python -m raylora.bench.load PLAN`, PLAN as JSON, alone in a process.

Every client has one connection, kept, and sends its next request as soon as it has its answer. Written on asyncio's
streams: with an HTTP store the client would take as much of two cores as the server does.
"""

import asyncio
import json
import math
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from raylora.bench.processes import answer, run_alone

DRAWN = 4096  # texts drawn for the requests, which are then sent over and over
LATE_S = 30.0  # an answer that takes longer than this past the end is given up
LOST = 0  # the status of a request whose connection broke


@dataclass(frozen=True)
class Plan:
    """What is asked. `texts_path` holds a JSON list; `rows` are texts a request.

    Each request names one of `adapters` in Ray Serve's own header, all as often; none where there are none. `once`:
    one request for each adapter, in order, then the end.
    """

    port: int
    texts_path: str
    clients: int = 1
    rows: int = 1
    adapters: list[str] = field(default_factory=list)
    warm_s: float = 1.0
    seconds: float = 5.0
    seed: int = 0
    once: bool = False


@dataclass(frozen=True)
class Load:
    """What came back between the warm-up and the end. Rates and latencies are of good answers alone.

    `statuses` counts all answers; "0" is a broken connection. `misshapen` of those with 200 are not what was asked
    for. `client_cores` is what this process took of the machine.
    """

    requests_per_s: float
    rows_per_s: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    statuses: dict[str, int]
    misshapen: int
    client_cores: float

    @property
    def failed(self) -> int:
        return sum(count for status, count in self.statuses.items() if status != "200") + self.misshapen


@dataclass(frozen=True)
class Answer:
    start: float
    end: float
    status: int
    body: bytes


def run(plan: Plan) -> Load:
    """The load from a process of its own."""
    return Load(**run_alone("raylora.bench.load", json.dumps(vars(plan))))


def requests_of(plan: Plan, texts: Sequence[str]) -> Iterator[bytes]:
    """HTTP requests, the same ones in the same order for the same seed: endless, unless each adapter has its one."""
    if plan.once:
        return iter([_request(plan.port, list(texts[: plan.rows]), name) for name in plan.adapters])
    random = np.random.default_rng(plan.seed)
    count = max(DRAWN // plan.rows, 64, len(plan.adapters))
    drawn: list[list[int]] = random.integers(len(texts), size=(count, plan.rows)).tolist()
    names: list[str | None] = [None] * count
    if plan.adapters:
        names = [plan.adapters[i] for i in _evenly(len(plan.adapters), count, random)]
    asked = zip(drawn, names, strict=True)
    return cycle([_request(plan.port, [texts[i] for i in row], name) for row, name in asked])


def _evenly(kinds: int, count: int, random: np.random.Generator) -> np.ndarray:
    """`count` numbers below `kinds`, each as often, in random order."""
    return random.permutation(np.arange(count) % kinds)


def _request(port: int, texts: Sequence[str], adapter: str | None) -> bytes:
    body = json.dumps({"inputs": texts[0] if len(texts) == 1 else list(texts)}).encode()
    named = f"serve_multiplexed_model_id: {adapter}\r\n" if adapter else ""
    head = f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n{named}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def well_formed(body: bytes, rows: int) -> bool:
    """Whether it is a list of `rows` lists of `{"label": str, "score": float}`, none of them empty."""
    try:
        found: Any = json.loads(body)
    except ValueError:
        return False
    return isinstance(found, list) and len(found) == rows and all(map(_is_ranking, found))


def _is_ranking(row: Any) -> bool:
    return (
        isinstance(row, list)
        and len(row) > 0
        and all(
            isinstance(entry, dict)
            and isinstance(entry.get("label"), str)
            and isinstance(entry.get("score"), float | int)
            for entry in row
        )
    )


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of them do not exceed (nearest rank); 0 of none."""
    return ordered[max(math.ceil(share * len(ordered)), 1) - 1] if ordered else 0.0


def summarize(answers: Sequence[Answer], rows: int, seconds: float, client_cores: float) -> Load:
    good = [a for a in answers if a.status == 200 and well_formed(a.body, rows)]
    counts = Counter(str(a.status) for a in answers)
    latencies = sorted(1000 * (a.end - a.start) for a in good)
    return Load(
        requests_per_s=len(good) / seconds,
        rows_per_s=len(good) * rows / seconds,
        p50_ms=percentile(latencies, 0.5),
        p95_ms=percentile(latencies, 0.95),
        p99_ms=percentile(latencies, 0.99),
        statuses=dict(sorted(counts.items())),
        misshapen=counts["200"] - len(good),
        client_cores=client_cores,
    )


async def drive(plan: Plan, texts: Sequence[str]) -> Load:
    """Run all clients in this process."""
    requests, answers = requests_of(plan, texts), list[Answer]()
    start = time.perf_counter() + plan.warm_s
    end = start + plan.seconds
    clients = [asyncio.create_task(_client(plan.port, requests, answers, end)) for _ in range(plan.clients)]
    await asyncio.sleep(plan.warm_s)
    busy = time.process_time()
    _, late = await asyncio.wait(clients, timeout=plan.seconds)
    busy = time.process_time() - busy
    seconds = min(time.perf_counter(), end) - start
    unanswered = set[Any]()
    if late:
        _, unanswered = await asyncio.wait(late, timeout=LATE_S)
    for client in unanswered:
        client.cancel()
    await asyncio.gather(*clients, return_exceptions=True)
    within = [a for a in answers if start <= a.end <= end] + [Answer(start, end, LOST, b"") for _ in unanswered]
    return summarize(within, plan.rows, seconds, busy / seconds)


async def _client(port: int, requests: Iterator[bytes], answers: list[Answer], end: float) -> None:
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
    for request in requests:
        start = time.perf_counter()
        if start >= end:
            break
        try:
            connection = connection or await asyncio.open_connection("127.0.0.1", port)
            connection[1].write(request)
            status, body, kept = await _read(connection[0])
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            status, body, kept = LOST, b"", False
            await asyncio.sleep(0.05)  # a server that is gone is not asked a thousand times
        answers.append(Answer(start, time.perf_counter(), status, body))
        if connection and not kept:
            connection[1].close()
            connection = None
    if connection:
        connection[1].close()


async def _read(reader: asyncio.StreamReader) -> tuple[int, bytes, bool]:
    """Status, body, and whether the connection is kept."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    _, there, rest = head.partition(b"content-length:")
    if not there:
        raise OSError("an answer without Content-Length")
    body = await reader.readexactly(int(rest[: rest.index(b"\r\n")]))
    return int(head[9:12]), body, b"connection: close" not in head


if __name__ == "__main__":
    plan = Plan(**json.loads(sys.argv[1]))
    answer(asyncio.run(drive(plan, json.loads(Path(plan.texts_path).read_text(encoding="utf-8")))))
