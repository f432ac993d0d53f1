"""A job's events on their way to its trackers."""

import queue
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from raylora.cluster.events.history import Event
from raylora.cluster.events.trackers.installed import open_tracker
from raylora.cluster.events.trackers.points import final_values, params_of, step_of, values_of
from raylora.cluster.events.trackers.tracker import JOB, Ids, Outcome, Points, Tracker
from raylora.cluster.storage.run_folder import ADAPTER, BEST_CONFIG, CONFIG, FINISHED, REPORT, TRIALS_TABLE, RunFolder
from raylora.config import Job
from raylora.leaderboard import Trial
from raylora.records import Say

WAIT_S, INTERRUPTED_S = 60.0, 10.0  # at the end, for what a server has not taken yet
FILES = (CONFIG, FINISHED, REPORT, TRIALS_TABLE, BEST_CONFIG)
Work = Callable[[Tracker], None]


class Lane:
    """One tracker and the thread that talks to it: in order, and without the job waiting for it."""

    def __init__(self, name: str, make: Callable[[], Tracker], say: Say) -> None:
        self.name, self.make, self.say = name, make, say
        self.work: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self.thread = threading.Thread(target=self._run, name=f"raylora-{name}", daemon=True)
        self.thread.start()

    def put(self, work: Work) -> None:
        self.work.put(work)

    def close(self, wait_s: float) -> None:
        self.work.put(None)
        self.thread.join(wait_s)
        if self.thread.is_alive():
            self.say(f"warning    {self.name} did not take all within {wait_s:.0f} s; the rest is in history.jsonl")

    def _run(self) -> None:
        try:
            tracker = self.make()
            while work := self.work.get():
                work(tracker)
        except Exception as error:  # noqa: BLE001 - no job fails by its trackers
            why = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
            self.say(f"warning    {self.name} is told no more, and the job goes on without it: {why[:300]}")


class Tracking:
    """Every tracker of one job."""

    def __init__(self, lanes: Sequence[Lane]) -> None:
        self.lanes = lanes
        self.open: dict[str, None] = {}
        self.ended: set[str] = set()
        self.step = 0

    def begin(self, run: str, params: Mapping[str, Any]) -> None:
        self.open[run] = None
        self.ended.discard(run)
        self._put(lambda tracker: tracker.begin(run, params))

    def add(self, events: list[Event]) -> None:
        """Hand a batch on; a trial's run begins with its first event."""
        for event in events:
            run, values = event.get("trial", JOB), values_of(event)
            if run != JOB and run not in self.open:
                self.begin(run, event["sample"])
            if values:
                self._points(run, values, step_of(event))
            if event["kind"] == "failure":
                self.end(run, "failed", event["failure"])
        if any(map(values_of, events)):
            self._put(lambda tracker: tracker.flush())

    def finish(self, folder: RunFolder, metrics: Mapping[str, Any], trials: Sequence[Trial] = ()) -> None:
        """The job is done: its scores, its files, and how each trial ended."""
        self._points(JOB, final_values(metrics), self.step)
        self._put(lambda tracker: tracker.flush())
        self._put(lambda tracker: _send_files(tracker, folder))
        for trial in trials:
            self._end_trial(trial)
        self.end(JOB, "finished", None)

    def _end_trial(self, trial: Trial) -> None:
        """Also one whose last event was before a kill."""
        if trial.name in self.ended:
            return
        if trial.name not in self.open:
            self.begin(trial.name, trial.sample)
        self.end(trial.name, "failed" if trial.status == "failed" else "finished", trial.reason)

    def end(self, run: str, outcome: Outcome, reason: str | None) -> None:
        del self.open[run]
        self.ended.add(run)
        self._put(lambda tracker: tracker.end(run, outcome, reason))

    def end_all(self, outcome: Outcome, reason: str | None) -> None:
        """The job ends here as it should not; its children may go on with it."""
        for run in reversed(list(self.open)):
            self.end(run, outcome, reason)

    def close(self, wait_s: float) -> None:
        until = time.monotonic() + wait_s
        for lane in self.lanes:
            lane.close(max(0.0, until - time.monotonic()))

    def _points(self, run: str, values: Mapping[str, float], step: int) -> None:
        self.step = max(self.step, step)
        points = Points(values, step, time.time())
        self._put(lambda tracker: tracker.add(run, points))

    def _put(self, work: Work) -> None:
        for lane in self.lanes:
            lane.put(work)


def _send_files(tracker: Tracker, folder: RunFolder) -> None:
    if not tracker.takes_files:
        return
    with tempfile.TemporaryDirectory(prefix="raylora-") as scratch:
        for name in FILES:
            if folder.has(name):
                (Path(scratch) / name).write_text(folder.read_text(name), encoding="utf-8")
        adapter = Path(scratch) / ADAPTER
        adapter.mkdir()
        folder.location.inside(ADAPTER).copy_to(adapter)
        tracker.files(Path(scratch))


@contextmanager
def tracked(job: Job, folder: RunFolder, is_sweep: bool, say: Say, last_step: int = 0) -> Generator[Tracking]:
    """The trackers of `train.report_to`, told how the job ended when this closes.

    Args:
        last_step: of the checkpoint that a run goes on from.
    """
    names = job.train.trackers
    ids = Ids(folder)
    makers = {name: open_tracker(name, folder, ids, is_sweep, last_step) for name in names}
    tracking = Tracking([Lane(name, make, say) for name, make in makers.items()])
    tracking.begin(JOB, params_of(job, is_sweep))
    wait_s = WAIT_S
    try:
        yield tracking
    except Exception as error:
        tracking.end_all("failed", str(error))
        raise
    except BaseException:  # Ctrl-C, SIGTERM
        tracking.end_all("interrupted", None)
        wait_s = INTERRUPTED_S
        raise
    finally:
        tracking.close(wait_s)
