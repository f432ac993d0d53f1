"""What the trials of a sweep tell: said as it comes, kept in history.jsonl, shown as metrics."""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager

from raylora.cluster.events.history import Event, History, earlier_events
from raylora.cluster.events.metrics import Gauges
from raylora.cluster.events.stream import Consumer, collect, hand_out, kept, tell_lines
from raylora.cluster.storage.run_folder import RunFolder
from raylora.cluster.tune.pulse import Underway
from raylora.cluster.tune.search import mode_of
from raylora.config import Job
from raylora.config.space import trial_job
from raylora.records import Say


class SweepEvents:
    """The events `trial` and `failure` of a sweep, each told once, also where the sweep goes on after a kill.

    Args:
        more: consumers beside the terminal, history.jsonl and the gauges.
    """

    def __init__(self, job: Job, folder: RunFolder, say: Say, more: Sequence[Consumer] = ()) -> None:
        self.best = max if mode_of(job) == "max" else min
        self.gauges = Gauges(folder.name)
        earlier = earlier_events(folder)
        self.told = {_key(event) for event in earlier}
        scores: list[float] = [event["score"] for event in earlier if "score" in event]
        self.score: float | None = self.best(scores, default=None)
        self.gauges.tune(self.score, 0)
        self.history = History(folder)
        lines = tell_lines(say, trial_job(job, {}).metric)
        self.consumers: list[Consumer] = [lines, lambda events: self.history.add(kept(events)), self._show, *more]
        self.underway = Underway()

    @contextmanager
    def kept(self) -> Generator[None]:
        """While this is open, gauges stay at their last values; at its end the history is whole."""
        with self.history, self.gauges.kept():
            yield

    def add(self, found: list[Event]) -> None:
        """Say, keep and show what is new."""
        progress = self.underway.of([event for event in found if event["kind"] == "progress"])
        new = [event for event in map(dict, kept(found)) if self._is_new(event)]
        hand_out([*new, *progress], self.consumers)

    def states(self, states: Mapping[str, int], total: int) -> None:
        """Show how many trials are in each state, of so many in all."""
        self.gauges.trials(states)
        self.underway.ended = f"; {states['ended'] + states['failed']} of {total} trials ended"

    def _is_new(self, event: Event) -> bool:
        """Not an epoch of before a kill that was told then, nor a failure of a trial that Ray Tune tried again."""
        is_again, key = event.pop("again", False), _key(event)
        was_told = key in self.told
        self.told.add(key)
        return not was_told or (event["kind"] == "trial" and not is_again)

    def _show(self, events: list[Event]) -> None:
        scores: list[float] = [event["score"] for event in events if event["kind"] == "trial"]
        self.score = self.best([*scores, *([] if self.score is None else [self.score])], default=None)
        self.gauges.tune(self.score, len(scores))


def _key(event: Event) -> tuple[str, int | None]:
    """Of a trial's epoch, or of its failure."""
    return event["trial"], round(event["epoch"]) if "epoch" in event else None


@contextmanager
def collect_trials(
    job: Job, folder: RunFolder, say: Say, more: Sequence[Consumer] = ()
) -> Generator[Callable[[Event], None]]:
    """A function for trials of several workers to call with each event, each in its own process, while this is open."""
    events = SweepEvents(job, folder, say, more)
    with events.kept(), collect(events.add, say) as tell:
        yield tell
