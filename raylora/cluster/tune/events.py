"""What the trials of a sweep report: printed as it comes, kept in history.jsonl, shown as metrics."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from raylora.cluster.events.metrics import Gauges
from raylora.cluster.events.stream import collect, read_history, write_history
from raylora.cluster.storage.run_folder import RunFolder
from raylora.cluster.tune.search import mode_of
from raylora.config import Job
from raylora.records import Say

# `trial`, `words` (its sample), `failure` (why there is no more, or None) and an evaluation; `again`: of before a kill
Event = dict[str, Any]


class SweepEvents:
    """All reports of a sweep, an interrupted one's included."""

    def __init__(self, job: Job, folder: RunFolder, say: Say) -> None:
        self.metric, self.best = job.train.metric_for_best_model, max if mode_of(job) == "max" else min
        self.folder, self.say = folder, say
        # by trial and epoch: an epoch trained again replaces its first report
        self.history = {(event["trial"], round(event["epoch"])): event for event in read_history(folder)}
        self.failed: set[str] = set()
        self.gauges = Gauges(folder.name)

    def add(self, found: list[Event]) -> None:
        """Say, keep and show what is new."""
        new: list[Event] = []
        for event in filter(self._is_new, found):
            new.append(event)
            self.say(trial_line(event, self.metric))
            if event["failure"] is None:
                self.history[event["trial"], round(event["epoch"])] = event
            else:
                self.failed.add(event["trial"])
        if new:
            write_history(self.folder, self.history.values())
        scores = [event["score"] for event in self.history.values()]
        self.gauges.tune(self.best(scores, default=None), sum(event["failure"] is None for event in new))

    def _is_new(self, event: Event) -> bool:
        """Not an epoch of before a kill that was said then, nor a failure of a trial that Ray Tune tried again."""
        if event["failure"] is not None:
            return event["trial"] not in self.failed
        return not event.pop("again", False) or (event["trial"], round(event["epoch"])) not in self.history


@contextmanager
def collect_trials(job: Job, folder: RunFolder, say: Say) -> Generator[Callable[[Event], None]]:
    """A function for trials of several workers to call with each event, each in its own process, while this is open."""
    events = SweepEvents(job, folder, say)
    with events.gauges.kept(), collect(events.add) as tell:
        yield tell


def trial_line(event: Event, metric: str) -> str:
    """The line of one report."""
    if event["failure"] is not None:
        return f"trial      {event['trial']}  failed: {event['failure']}  ({event['words']})"
    return (
        f"trial      {event['trial']}  epoch {event['epoch']:g}  {metric} {event[f'eval_{metric}']:.4f}  "
        f"best {event['score']:.4f}  ({event['words']})"
    )
