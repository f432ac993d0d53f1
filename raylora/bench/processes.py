"""Rivals in processes of their own: one alone, or several at the same time, timed and their memory watched."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from threading import Event
from typing import Any

import psutil

from raylora.errors import TrainingError

WATCH_S = 0.5  # a look at a process of 1 GB takes the kernel about 5 ms


@dataclass(frozen=True)
class Together:
    """Several processes at once: from the moment that all were ready until the last ended.

    `peak_bytes` is the largest sum of their memory, pages that several hold counted once (PSS) where the system can
    tell, else their resident sizes.
    """

    wall_s: float
    peak_bytes: int
    answers: list[dict[str, Any]]


def answer(record: Any) -> None:
    """A child's last word: a dataclass as a line of JSON."""
    sys.stdout.write("\n" + json.dumps(asdict(record)) + "\n")


def wait_for_go() -> None:
    """A child that is ready waits here until all beside it are."""
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()


def run_alone(module: str, *words: str) -> dict[str, Any]:
    """What `python -m module words...` answers.

    Raises:
        TrainingError: it failed; the end of its error output.
    """
    # files, not pipes: a pipe ends when the last of Ray's processes lets go of it, seconds after the child itself
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        command = [sys.executable, "-P", "-m", module, *words]
        code = subprocess.run(command, stdout=output, stderr=errors, check=False).returncode
        output.seek(0)
        errors.seek(0)
        return _read(code, output.read(), errors.read(), words)


def run_together(module: str, words: Sequence[Sequence[str]]) -> Together:
    """`python -m module ...` once for each entry, all at the same time.

    Raises:
        TrainingError: one failed; the end of its error output.
    """
    with tempfile.TemporaryFile("w+") as errors:
        processes = [
            subprocess.Popen(
                [sys.executable, "-P", "-m", module, *own],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
            for own in words
        ]
        try:
            outputs, wall_s, peak_bytes = _start_and_wait(processes)
        finally:
            for process in processes:
                process.kill()
        errors.seek(0)
        said = errors.read()
    ended = zip(processes, outputs, words, strict=True)
    return Together(wall_s, peak_bytes, [_read(p.wait(), out, said, own) for p, out, own in ended])


def _start_and_wait(processes: Sequence["subprocess.Popen[str]"]) -> tuple[list[str], float, int]:
    """What each wrote, the wall time, and the peak of memory."""
    for process in processes:
        assert process.stdout and process.stdin, "both are pipes"
        if not any(line == "ready\n" for line in process.stdout):
            return ["" for _ in processes], 0.0, 0  # it died; its exit code says so
    start, stop = time.perf_counter(), Event()
    with ThreadPoolExecutor(1) as pool:
        peak = pool.submit(_watch, [process.pid for process in processes], stop)
        try:
            for process in processes:
                assert process.stdin
                process.stdin.write("go\n")
                process.stdin.flush()
            outputs = [process.communicate()[0] for process in processes]
            wall_s = time.perf_counter() - start
        finally:
            stop.set()
    return outputs, wall_s, peak.result()


def _watch(pids: Sequence[int], stop: Event) -> int:
    peak = sum(_bytes(pid) for pid in pids)
    while not stop.wait(WATCH_S):
        peak = max(peak, sum(_bytes(pid) for pid in pids))
    return peak


def _bytes(pid: int) -> int:
    try:
        memory = psutil.Process(pid).memory_full_info()
    except psutil.NoSuchProcess:
        return 0
    return int(getattr(memory, "pss", memory.rss))


def _read(code: int, output: str, errors: str, words: Sequence[str]) -> dict[str, Any]:
    if code:
        raise TrainingError(f"bench of '{words[0]}' failed:\n{errors[-2000:]}")
    return json.loads(output.strip().splitlines()[-1])
