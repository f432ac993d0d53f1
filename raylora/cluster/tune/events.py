"""What the trials of a sweep report: printed as it comes, kept in history.jsonl, shown as metrics."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from raylora.cluster.events.metrics import Gauges
from raylora.cluster.events.stream import hear, read_history, write_history
from raylora.cluster.storage.run_folder import RunFolder
from raylora.cluster.tune.search import mode_of
from raylora.config import Job
from raylora.records import Say

# `trial`, `words` (its sample), `failure` (why there is no more, or None) and an evaluation; `again`: of before a kill
Item = dict[str, Any]


class Told:
    """All reports of a sweep, an interrupted one's included."""

    def __init__(self, job: Job, folder: RunFolder, say: Say) -> None:
        self.metric, self.best = job.train.metric_for_best_model, max if mode_of(job) == "max" else min
        self.folder, self.say = folder, say
        # by trial and epoch: an epoch trained again replaces its first report
        self.history = {(item["trial"], round(item["epoch"])): item for item in read_history(folder)}
        self.failed: set[str] = set()
        self.gauges = Gauges(folder.name)

    def add(self, items: list[Item]) -> None:
        """Tell what is new."""
        news: list[Item] = []
        for item in filter(self._is_news, items):
            news.append(item)
            self.say(describe(item, self.metric))
            if item["failure"] is None:
                self.history[item["trial"], round(item["epoch"])] = item
            else:
                self.failed.add(item["trial"])
        if news:
            write_history(self.folder, self.history.values())
        scores = [item["score"] for item in self.history.values()]
        self.gauges.tune(self.best(scores, default=None), sum(item["failure"] is None for item in news))

    def _is_news(self, item: Item) -> bool:
        """Not an epoch of before a kill that was told then, nor a failure of a trial that Ray Tune tried again."""
        if item["failure"] is not None:
            return item["trial"] not in self.failed
        return not item.pop("again", False) or (item["trial"], round(item["epoch"])) not in self.history


@contextmanager
def tell_trials(job: Job, folder: RunFolder, say: Say) -> Generator[Callable[[Item], None]]:
    """A `tell` for trials of several workers to call, each in its own process; heard while this is open."""
    told = Told(job, folder, say)
    with told.gauges.kept(), hear(told.add) as tell:
        yield tell


def describe(item: Item, metric: str) -> str:
    """The line of one report."""
    if item["failure"] is not None:
        return f"trial      {item['trial']}  failed: {item['failure']}  ({item['words']})"
    return (
        f"trial      {item['trial']}  epoch {item['epoch']:g}  {metric} {item[f'eval_{metric}']:.4f}  "
        f"best {item['score']:.4f}  ({item['words']})"
    )
