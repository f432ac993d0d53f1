"""A trial as Ray Tune sees it: a light process that queues the trial at the broker and reports what comes back.

Loads no torch: a trainable starts in a second or two and takes a tenth of a worker's memory.
"""

from dataclasses import dataclass, replace
from typing import Any

import ray
import ray.tune
from ray.tune import Checkpoint

from raylora.cluster.tune.broker import Report, TrialRequest
from raylora.cluster.tune.checkpoints import Files, as_folder
from raylora.cluster.tune.policy import alone_because, pack_slots
from raylora.cluster.tune.restore import newest_whole
from raylora.cluster.tune.trial_progress import SCORES, read_progress
from raylora.config import Job
from raylora.config.space import WHOLE_EPOCHS, from_plain, trial_job
from raylora.errors import TrainingError
from raylora.leaderboard import describe
from raylora.model.packing import pack_key


@dataclass(frozen=True)
class SweepTrainable:
    """What each trial's trainable knows of its sweep. `width` is the 90th percentile of the rows' tokens."""

    job: Job
    broker: Any
    width: float
    use_gpu: bool

    def __call__(self, sample: dict[str, Any]) -> None:
        """Run one trial from wherever its last checkpoint left it.

        Raises:
            TrainingError: the trial failed; the reason.
        """
        checkpoint = ray.tune.get_checkpoint()
        files, is_known = newest_whole(checkpoint) if checkpoint else ({}, True)
        request = self._request(ray.tune.get_context().get_trial_id(), from_plain(sample), files)
        if files:
            progress = read_progress(files)
            if self.job.tune.scheduler != "pbt":  # whose checkpoint may be another trial's
                ray.get(self.broker.replay.remote(request, progress.reports))
            if not is_known:  # a kill kept Ray Tune from knowing this checkpoint
                _report(Report({**progress.last, SCORES: progress.scores}, files))
        ahead: TrialRequest | None = request
        while ahead:
            ahead = self._attempt(ahead)

    def _attempt(self, request: TrialRequest) -> TrialRequest | None:
        """Queue the trial once, and report what comes back.

        Returns:
            What is to be queued next, from the last report on, where a worker hands the trial back.

        Raises:
            TrainingError: the attempt failed; the reason.
        """
        attempt_id: str = ray.get(self.broker.submit.remote(request))
        try:
            report = self._next(attempt_id)
            while not (report.finished or report.again):
                _report(report)
                request = replace(request, checkpoint=report.files)
                report = self._next(attempt_id)
            _report(report)
        finally:  # also where the scheduler stops the trial: Ray Tune ends this thread with SystemExit
            ray.get(self.broker.leave.remote(attempt_id))
        return request if report.again else None

    def _request(self, trial: str, sample: dict[str, Any], checkpoint: Files) -> TrialRequest:
        job = trial_job(self.job, sample).replace(WHOLE_EPOCHS)
        return TrialRequest(
            trial=trial,
            tree=job.model_dump(),
            key=None if alone_because(job) else pack_key(job),
            slots=pack_slots(job, self.width, self.use_gpu),
            words=describe(sample),
            checkpoint=checkpoint or None,
            sample=sample,
        )

    def _next(self, attempt_id: str) -> Report:
        report: Report = ray.get(self.broker.next.remote(attempt_id))
        if report.failure:
            raise TrainingError(report.failure)
        if report.lost:
            raise TrainingError("the worker of this trial was lost")
        return report


def _report(report: Report) -> None:
    if report.metrics:
        with as_folder(report.files) as folder:
            ray.tune.report(report.metrics, checkpoint=Checkpoint.from_directory(str(folder)))
