"""Records of a running fit, from rank 0 to the driver: printed as they come and kept in history.jsonl."""

import json
import queue
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from typing import Any

import ray

from raylora.cluster.events.metrics import Gauges
from raylora.cluster.periodic import run_every
from raylora.cluster.storage.run_folder import RunFolder
from raylora.floor import floor_line
from raylora.records import Say

Event = dict[str, Any]


class EventQueue:
    """Holds records until the driver takes them."""

    def __init__(self) -> None:
        self.records: queue.SimpleQueue[Event] = queue.SimpleQueue()

    def put(self, record: Event) -> None:
        self.records.put(record)

    def take(self) -> list[Event]:
        return [self.records.get() for _ in range(self.records.qsize())]


@contextmanager
def follow(folder: RunFolder, say: Say, last_step: int) -> Generator[Callable[[Event], None]]:
    """A `log` for workers to call; while it is open, records are printed, kept in history.jsonl and shown as metrics.

    Args:
        last_step: of the checkpoint the run goes on from; later records of an earlier attempt are dropped.
    """
    history = [r for r in read_history(folder) if r.get("step", 0) <= last_step]
    gauges = Gauges(folder.name)

    def add(records: list[Event]) -> None:
        for record in records:
            line = event_line(record)
            if line:
                say(line)
            history.append(record)
            gauges.train(record)
        if records:
            write_history(folder, history)

    with gauges.kept(), collect(add) as log:
        yield log


@contextmanager
def collect(add: Callable[[list[Event]], None]) -> Generator[Callable[[Event], None]]:
    """A function that other processes call with a record; while this is open, `add` takes them here, to the last."""
    events: Any = ray.remote(num_cpus=0)(EventQueue).remote()

    def take() -> None:
        add(ray.get(events.take.remote()))

    try:
        with run_every(0.5, take, "raylora-progress"):
            yield lambda record: events.put.remote(record)
    finally:
        take()
        ray.kill(events)


def write_history(folder: RunFolder, records: Iterable[Event]) -> None:
    folder.write_text("history.jsonl", "".join(json.dumps(record) + "\n" for record in records))


def read_history(folder: RunFolder) -> list[Event]:
    if not folder.has("history.jsonl"):
        return []
    return [json.loads(line) for line in folder.read_text("history.jsonl").splitlines()]


def event_line(record: Event) -> str | None:
    """The line a record prints as; loss records only go to the file."""
    if record["kind"] == "model":
        share = record["trainable"] / record["parameters"]
        return (
            f"trainable  {record['trainable']:,} of {record['parameters']:,} parameters ({share:.4%}), "
            f"{record['threads']} thread{'s' * (record['threads'] != 1)} per worker"
        )
    if record["kind"] == "head":
        return head_line(record["init"], record["reason"], record["seconds"])
    if record["kind"] == "floor":
        return f"floor      {floor_line(record)}"
    if record["kind"] == "evaluation":
        left = f", about {duration(record['left_s'])} left" if record["left_s"] else ""
        return (
            f"epoch {record['epoch']:g}    accuracy {record['eval_accuracy']:.4f}  f1 {record['eval_f1']:.4f}  "
            f"loss {record['eval_loss']:.4f}  (validation; {duration(record['taken_s'])}{left})"
        )
    return None


def head_line(init: str, reason: str | None, seconds: float) -> str:
    """Where a head starts, and why, where that is not from the probe that the job wants."""
    if init == "probe":
        return f"head       starts from a linear probe of the frozen base ({duration(seconds)})"
    if init == "base":
        return "head       is the base's own, and goes on from there" + (f"; no floor: {reason}" if reason else "")
    return f"head       starts at random: {reason}"


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
