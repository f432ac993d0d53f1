"""What a running job tells: from its workers to the driver, and there to each consumer.

Consumers are the terminal, history.jsonl, the Prometheus gauges and the trackers (`events.trackers`).

An event is a flat dict, as it stands in history.jsonl. `kind` says what it tells; a run's events have the `step` and
`epoch` where they were, but for the first three:

    model         how many parameters are trained, on how many threads
    head          where the head starts: `init`, `reason`, `seconds`
    floor         baselines on the same rows, as `raylora.floor.summary` gives them
    checkpoint    one within an epoch, and its `reason`
    loss          `loss`, `learning_rate`, `rows_per_s`, each `train.logging_steps`
    progress      how far an epoch is, every other second: `steps` of the run, `rows_per_s` over all workers,
                  `taken_s`, `left_s`, `epoch_left_s`; not kept. A worker of a sweep tells `worker`, its `trials`, the
                  `share` of their epoch that is done, `rows_per_s`, and `left_s` of that epoch
    evaluation    `eval_*` of an epoch, `taken_s`, and `left_s` of the run
    calibration   the `temperature` that went into the head, and what the validation scores were worth before and after
    trial         of a sweep: an epoch of `trial`, whose `sample` is in `words`, too: `eval_*`, `score` and `best_*` so
                  far
    failure       of a sweep: why `trial` has no more epochs

An epoch that was trained again, after a worker or the driver was lost, stands twice: the last counts. Sweeps before
December 2026 wrote trials alone, without a `kind`.
"""

import queue
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from time import monotonic
from typing import Any

import ray

from raylora.cluster.events.history import Event, History, earlier_events
from raylora.cluster.events.metrics import Gauges
from raylora.cluster.periodic import never_failing, run_every
from raylora.cluster.session import beside_driver
from raylora.cluster.storage.run_folder import RunFolder
from raylora.floor import floor_line
from raylora.records import LiveSay, Say
from raylora.tasks import scores_in_words

Consumer = Callable[[list[Event]], object]
SAID_S = 60.0  # between two lines that say how far an epoch is, where lines are not drawn over


class EventQueue:
    """Holds records until the driver takes them."""

    def __init__(self) -> None:
        self.records: queue.SimpleQueue[Event] = queue.SimpleQueue()

    def put(self, record: Event) -> None:
        self.records.put(record)

    def take(self) -> list[Event]:
        return [self.records.get() for _ in range(self.records.qsize())]


@contextmanager
def follow(
    folder: RunFolder, say: Say, last_step: int, more: Sequence[Consumer] = ()
) -> Generator[Callable[[Event], None]]:
    """A `log` for workers to call; while it is open, events are printed, kept in history.jsonl and shown as metrics.

    Args:
        last_step: of the checkpoint the run goes on from; later events of an earlier attempt are dropped.
        more: consumers beside these.
    """
    earlier_events(folder, lambda event: event.get("step", 0) <= last_step)
    gauges = Gauges(folder.name)
    with History(folder) as history, gauges.kept():
        consumers: list[Consumer] = [tell_lines(say), lambda events: history.add(kept(events)), gauges.add, *more]
        with collect(lambda events: hand_out(events, consumers), say) as log:
            yield log


def tell_lines(say: Say, metric: str = "") -> Consumer:
    """Says each event that has a line; how far an epoch is, once a minute or on a live line. `metric` is a sweep's."""
    pace = Pace(say)

    def tell(events: list[Event]) -> None:
        for event in events:
            line = event_line(event, metric)
            if line and event["kind"] == "progress":
                pace.tell(line)
            elif line:
                say(line)
                pace.wait()

    return tell


class Pace:
    """Says how far the work is: on a terminal in a line that is drawn over, elsewhere in one line a minute."""

    def __init__(self, say: Say, clock: Callable[[], float] = monotonic) -> None:
        self.say, self.clock = say, clock
        self.wait()

    def wait(self) -> None:
        """Something was said just now."""
        self.said = self.clock()

    def tell(self, line: str) -> None:
        if isinstance(self.say, LiveSay):
            self.say.live(line)
        elif self.clock() - self.said >= SAID_S:
            self.say(line)
            self.wait()


def kept(events: list[Event]) -> list[Event]:
    """Without those that are of the moment."""
    return [event for event in events if event["kind"] != "progress"]


def hand_out(events: list[Event], consumers: Sequence[Consumer]) -> None:
    """Give a batch to each consumer, if there is something in it, also where another one fails.

    Raises:
        Exception: of the first that failed.
    """
    failures: list[Exception] = []
    for consume in consumers if events else ():
        try:
            consume(events)
        except Exception as error:  # noqa: BLE001 - raised below
            failures.append(error)
    if failures:
        raise failures[0]


@contextmanager
def collect(add: Callable[[list[Event]], None], say: Say) -> Generator[Callable[[Event], None]]:
    """A function that other processes call with a record; while this is open, `add` takes them here, to the last."""
    events: Any = ray.remote(**beside_driver())(EventQueue).remote()

    def take() -> None:
        add(ray.get(events.take.remote()))

    tried = never_failing(take, "progress", say)  # no run fails by its events: those that a killed queue held are lost
    try:
        with run_every(0.5, tried, "progress", say):
            yield lambda record: events.put.remote(record)
    finally:
        tried()
        ray.kill(events)


def event_line(record: Event, metric: str = "") -> str | None:
    """The line an event prints as; losses only go to the file. A trial's shows the sweep's `metric`."""
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
    if record["kind"] == "checkpoint":
        return f"saved      epoch {record['epoch']:.2f}, step {record['step']} ({record['reason']})"
    if record["kind"] == "progress":
        return progress_line(record)
    if record["kind"] == "evaluation":
        left = f", about {duration(record['left_s'])} left" if record["left_s"] else ""
        return (
            f"epoch {record['epoch']:g}    {scores_in_words(record, 'eval_')}  "
            f"(validation; {duration(record['taken_s'])}{left})"
        )
    if record["kind"] == "calibration" and record["temperature"] == 1:
        error = f"{record['ece_before']:.3f}"
        return f"calibrated scores stay as they are: off by {error} on the validation rows, as chance may have it"
    if record["kind"] == "calibration":
        return (
            f"calibrated temperature {record['temperature']:.2f}: what scores claim was off by "
            f"{record['ece_before']:.3f} on the validation rows, now by {record['ece_after']:.3f}"
        )
    if record["kind"] == "trial":
        return (
            f"trial      {record['trial']}  epoch {record['epoch']:g}  {metric} {record[f'eval_{metric}']:.4f}  "
            f"best {record['score']:.4f}  ({record['words']})"
        )
    if record["kind"] == "failure":
        return f"trial      {record['trial']}  failed: {record['failure']}  ({record['words']})"
    return None


def progress_line(record: Event) -> str:
    """Of a run its steps; of a sweep what its workers are at: the sum of their rates, and the longest way to go."""
    pace = f"{record['rows_per_s']:,.0f} rows/s, about {duration(record['left_s'])} left"
    if "steps" in record:
        done, steps = record["step"], record["steps"]
        return f"step       {done:,} of {steps:,} ({done / steps:.0%}), epoch {record['epoch']:.2f}, {pace}"
    trials = f"{record['trials']} trial{'s' * (record['trials'] != 1)}"
    return f"step       {trials} at {record['share']:.0%} of an epoch, {pace} of it{record.get('ended', '')}"


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
