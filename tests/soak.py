"""Mixed load on an endpoint of two replicas while adapters are swapped and replicas killed: no answer may be wrong.

python tests/soak.py --seconds 1800 --swap-every 5 --kill-every 60 --clients 8
"""

import argparse
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path

import psutil

import raylora

sys.path.insert(0, str(Path(__file__).parent))

from serving import Reply, Server, serving

TEXTS = [
    "Fine",
    "Arrived a day early.",
    "It broke after a week and nobody answers the phone.",
    "Works well. " * 12,
    "中文 and more",
    "The left one is louder than the right one, which is a pity, because the rest of it is good. " * 2,
]
NEAR_S = 5.0  # what a kill may break shows within this
LOST = (OSError, HTTPException)  # a connection that is refused, reset or closed without an answer
GROWTH_BYTES = 60 * 2**20  # of a replica's memory, from 20 s of age to its end
YOUNG_S = 20.0

Scores = Mapping[str, float]


class Truth:
    """What every version of every name must answer: the scores of its folder, computed in process."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self.scores: dict[str, list[Scores]] = {
            str(folder): [p.scores for p in raylora.load(folder).predict(TEXTS)] for folder in folders
        }
        self.paths: dict[tuple[str, str], str] = {}
        self.newest: dict[str, int] = {}

    def announce(self, name: str, path: str) -> None:
        """A PUT is about to be sent. Repeated after a lost answer it makes more than one version, all of this path."""
        newest = self.newest.get(name, 0)
        self.paths |= {(name, str(newest + i)): path for i in range(1, 10)}

    def settle(self, name: str, version: str) -> None:
        self.newest[name] = max(self.newest.get(name, 0), int(version))

    def fault_of(self, reply: Reply, name: str, chosen: Sequence[int]) -> str | None:
        """What is wrong with a 200."""
        version = reply.headers.get("x-adapter-version", "")
        path = self.paths.get((name, version))
        if reply.headers.get("x-adapter") != name or path is None:
            return f"asked {name}, answered by {reply.headers.get('x-adapter')} version '{version}'"
        rows = [{entry["label"]: entry["score"] for entry in row} for row in reply.json]
        wanted = [self.scores[path][i] for i in chosen]
        if len(rows) != len(wanted):
            return f"{len(rows)} answers to {len(wanted)} texts"
        for found, right in zip(rows, wanted, strict=True):
            if found.keys() != right.keys() or any(abs(found[label] - right[label]) > 1e-5 for label in right):
                return f"{name} version {version} ({path}) says {right}, found {found}"
        return None


@dataclass(frozen=True)
class Failure:
    """A request that was not answered with 200: `status` 0 is a lost connection. `at` and `end` by time.monotonic."""

    at: float
    end: float
    status: int
    text: str


@dataclass
class Seen:
    """What a load has met."""

    statuses: Counter[int] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    slowest_s: float = 0.0

    @property
    def requests(self) -> int:
        return self.statuses.total()


class Load:
    """Clients that ask named adapters without a pause, `sizes` texts at a time; every answer is checked."""

    def __init__(
        self, server: Server, truth: Truth, names: Sequence[str], sizes: Sequence[int] = (1, 1, 1, 2, 4, 8)
    ) -> None:
        self.server, self.truth, self.names, self.sizes = server, truth, names, sizes
        self.seen, self.done, self._lock = Seen(), threading.Event(), threading.Lock()

    @contextmanager
    def running(self, clients: int) -> Iterator[Seen]:
        threads = [threading.Thread(target=self._ask_on, args=(i,), daemon=True) for i in range(clients)]
        for thread in threads:
            thread.start()
        try:
            yield self.seen
        finally:
            self.done.set()
            for thread in threads:
                thread.join(90)
                assert not thread.is_alive(), "a request hangs"

    def _ask_on(self, seed: int) -> None:
        chance = random.Random(seed)
        while not self.done.is_set():
            name = chance.choice(self.names)
            chosen = [chance.randrange(len(TEXTS)) for _ in range(chance.choice(self.sizes))]
            if not self._ask(name, chosen):
                time.sleep(0.05)  # a refused client waits, or the log fills with one second

    def _ask(self, name: str, chosen: Sequence[int]) -> bool:
        at = time.monotonic()
        try:
            reply = self.server.predict([TEXTS[i] for i in chosen], f"/adapters/{name}/predict")
        except LOST as error:
            reply = Reply(0, {}, repr(error))
        end = time.monotonic()
        wrong = self.truth.fault_of(reply, name, chosen) if reply.status == 200 else None
        with self._lock:
            seen = self.seen
            seen.statuses[reply.status] += 1
            seen.slowest_s = max(seen.slowest_s, end - at)
            if wrong:
                seen.wrong.append(wrong)
            if reply.status != 200:
                seen.failures.append(Failure(at, end, reply.status, reply.text[:200]))
        return reply.status == 200


def processes(server: Server, mark: str) -> list[psutil.Process]:
    """Those of the endpoint whose command line holds `mark`, oldest first."""
    found: list[psutil.Process] = []
    for child in psutil.Process(server.process.pid).children(recursive=True):
        try:
            if any(mark in part for part in child.cmdline()):
                found.append(child)
        except psutil.Error:  # it has just ended
            continue
    return sorted(found, key=lambda process: process.create_time())


def replicas(server: Server) -> list[psutil.Process]:
    """Replicas that have been built (`ray::SERVE_REPLICA::serve#endpoint#...` is the name of one that is being)."""
    return [
        process for process in processes(server, "ServeReplica:serve:endpoint") if not _is_young(process.cmdline()[0])
    ]


def _is_young(title: str) -> bool:
    return "__init__" in title or "initialize_and_get_metadata" in title


def wait_for(condition: Callable[[], bool], timeout_s: float, what: str) -> float:
    """Seconds that it took."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < timeout_s, f"not after {timeout_s:g} s: {what}"
        time.sleep(0.2)
    return time.monotonic() - start


def put(server: Server, truth: Truth, name: str, path: Path, traffic: float = 1.0, patience_s: float = 40) -> str:
    """The version that a PUT makes; repeated while the endpoint says that it is not ready."""
    truth.announce(name, str(path))
    until = time.monotonic() + patience_s
    while True:
        try:
            reply = server.ask("PUT", f"/adapters/{name}", {"path": str(path), "traffic": traffic})
        except LOST as error:
            reply = Reply(0, {}, repr(error))
        if reply.status == 200:
            truth.settle(name, reply.json["version"])
            return reply.json["version"]
        assert reply.status in (0, 202, 503), reply.text  # 202: some replica lacks it
        assert time.monotonic() < until, reply.text
        time.sleep(0.5)


@dataclass
class Memory:
    """Of one replica, in bytes: as it was at `YOUNG_S` of age, and last."""

    first: int
    last: int


class Soak:
    def __init__(self, server: Server, truth: Truth, folders: Sequence[Path], names: Sequence[str]) -> None:
        self.server, self.truth, self.folders, self.names = server, truth, folders, names
        self.kills: list[float] = []
        self.swaps, self.slowest_swap_s = 0, 0.0
        self.memory: dict[int, Memory] = {}
        self._canary: tuple[str, Path] | None = None
        self._chance = random.Random(0)

    def run(self, options: argparse.Namespace) -> Seen:
        start = time.monotonic()
        next_swap, next_kill, next_look = start + options.swap_every, start + options.kill_every, start
        load = Load(self.server, self.truth, self.names)
        with load.running(options.clients) as seen:
            while (now := time.monotonic()) < start + options.seconds:
                if now >= next_swap:
                    next_swap = now + options.swap_every
                    self.swap()
                elif now >= next_kill and len(replicas(self.server)) > 1:
                    next_kill = now + options.kill_every
                    self.kill()
                elif now >= next_look:
                    next_look = now + 5
                    self.look()
                time.sleep(0.1)
            self.look()
        return seen

    def swap(self) -> None:
        """Another folder for a name: whole, or first as a canary that the next swap makes whole."""
        start = time.monotonic()
        if self._canary:
            name, folder = self._canary
            self._canary = None
            put(self.server, self.truth, name, folder)
        else:
            name, folder = self._chance.choice(self.names), self._chance.choice(self.folders)
            whole = self._chance.random() < 0.6
            put(self.server, self.truth, name, folder, 1.0 if whole else 0.3)
            self._canary = None if whole else (name, folder)
        self.swaps += 1
        self.slowest_swap_s = max(self.slowest_swap_s, time.monotonic() - start)

    def kill(self) -> None:
        victim = self._chance.choice(replicas(self.server))
        self.kills.append(time.monotonic())
        victim.kill()

    def look(self) -> None:
        for process in replicas(self.server):
            try:
                if time.time() - process.create_time() > YOUNG_S:
                    now = process.memory_info().rss
                    self.memory.setdefault(process.pid, Memory(now, now)).last = now
            except psutil.Error:
                continue

    def faults(self, seen: Seen) -> list[str]:
        """Everything that must not be: a lost connection and a 503 are for the time around a kill."""
        found = [f"wrong: {text}" for text in seen.wrong]
        for failure in seen.failures:
            near = any(failure.at - NEAR_S < kill < failure.end + NEAR_S for kill in self.kills)
            if failure.status not in (0, 503) or not near:
                found.append(f"status {failure.status}: {failure.text}")
        for pid, memory in self.memory.items():
            if memory.last - memory.first > GROWTH_BYTES:
                found.append(f"replica {pid} grew from {memory.first >> 20} to {memory.last >> 20} MiB")
        return found


def _summary(soak: Soak, seen: Seen, seconds: float) -> str:
    lost = Counter(failure.text for failure in seen.failures if failure.status == 0)
    grown = ", ".join(f"{memory.first >> 20} to {memory.last >> 20}" for memory in soak.memory.values())
    statuses = ", ".join(f"{status}: {count}" for status, count in sorted(seen.statuses.items()) if status)
    return "".join(
        f"{line}\n"
        for line in (
            f"requests   {seen.requests} ({seen.requests / seconds:.0f} a second), the slowest {seen.slowest_s:.1f} s",
            f"wrong      {len(seen.wrong)}",
            f"statuses   {statuses}",
            f"lost       {lost.total()} connections, over {len(soak.kills)} kills {dict(lost) or ''}",
            f"swaps      {soak.swaps}, the slowest {soak.slowest_swap_s:.1f} s",
            f"memory     of each replica, MiB: {grown}",
        )
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1800)
    parser.add_argument("--swap-every", type=float, default=5)
    parser.add_argument("--kill-every", type=float, default=60)
    parser.add_argument("--clients", type=int, default=8)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="raylora-soak-") as scratch:
        root = Path(scratch)
        folders = save_adapters(root / "adapters")
        truth, names = Truth(folders), ["one", "two", "three", "four"]
        start = dict(zip(names, folders, strict=True))
        for name, folder in start.items():
            truth.announce(name, str(folder))
            truth.settle(name, "1")
        with serving(*words(start, replicas=2), folder=root) as server:
            wait_for(lambda: len(replicas(server)) == 2, 60, "two replicas")
            soak = Soak(server, truth, folders, names)
            seen = soak.run(options)
        sys.stdout.write(_summary(soak, seen, options.seconds))
    faults = soak.faults(seen)
    for fault in faults[:20]:
        sys.stdout.write(f"fault      {fault}\n")
    return 1 if faults else 0


def save_adapters(folder: Path) -> list[Path]:
    """Four adapters of unlike ranks, targets and labels on a tiny random base."""
    from tiny import make_adapter, save_base

    save_base("bert", folder / "base")
    base = folder / "base"
    return [
        make_adapter(base, folder / "demo", ("negative", "positive"), seed=1),
        make_adapter(base, folder / "topics", ("sports", "business", "science", "world"), seed=2, lora__r=8),
        make_adapter(base, folder / "other", ("a", "b", "c"), seed=3, lora__target_modules=["key", "dense"]),
        make_adapter(base, folder / "again", ("negative", "positive"), seed=4),
    ]


def words(adapters: Mapping[str, Path], replicas: int) -> list[str]:
    """Arguments of `raylora serve`: so many replicas, wherever there are two cores."""
    return [
        *(f"serve.adapters.{name}={folder}" for name, folder in adapters.items()),
        f"serve.autoscaling_config={{min_replicas: {replicas}, max_replicas: {replicas}}}",
        "serve.ray_actor_options={num_cpus: 0.5}",
    ]


if __name__ == "__main__":
    sys.exit(main())
