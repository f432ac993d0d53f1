"""A worker of a sweep: takes trials from the broker and trains them, packed over one base or one alone."""

import gc
import logging
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
import torch

from raylora.cluster.events.history import Event
from raylora.cluster.placement import WorkerPlan
from raylora.cluster.tune.broker import Report, TrialRequest
from raylora.cluster.tune.checkpoints import Files, as_folder, read_files
from raylora.cluster.tune.pulse import Pulse, of_one_trial
from raylora.cluster.tune.shared_base import SharedBase
from raylora.cluster.tune.trial_progress import TrialProgress, read_progress
from raylora.config import Job
from raylora.errors import RayLoraError, TrainingError
from raylora.model.bank import Bank, EpochResult
from raylora.model.base.find import resolve_on_node
from raylora.model.fit.fit import fit
from raylora.model.fit.splits import Worker
from raylora.model.limits import is_out_of_memory
from raylora.model.packing import NotPackable

logger = logging.getLogger(__name__)

DECISION_S = 120.0  # a trainable answers in a fraction of a second; one that is silent for so long is dead
FIRST_FILL_S = 20.0  # trainables start one after another on few cores, 2 s each
REFILL_SHARE = 0.1  # of an epoch: what the trials that run may wait for the ones that come
NO_LIMIT = 1_000_000


@dataclass(frozen=True)
class SweepTask:
    """All that a worker needs, as it travels through Ray. `shared_bases` by `model.base_model`."""

    shared_bases: dict[str, SharedBase]
    plan: WorkerPlan
    broker: Any

    def shared(self, job: Job) -> SharedBase:
        shared = self.shared_bases[job.model.base_model]
        return replace(shared, base=resolve_on_node(shared.base))


class Left(BaseException):
    """Unwinds a fit whose trial was stopped; not an error."""


class TrialWorker:
    """Runs trials until the sweep is over. One per GPU, or per `ray.resources_per_worker`."""

    def __init__(self, name: str, task: SweepTask, most: int = NO_LIMIT) -> None:
        self.name, self.task, self.most = name, task, most
        plan = task.plan
        self.worker = Worker(threads=None if plan.use_gpu else plan.threads, use_gpu=plan.use_gpu)
        if self.worker.threads:
            torch.set_num_threads(self.worker.threads)

    def run(self) -> None:
        while (requests := self._broker("take", self.name, None, self.most, FIRST_FILL_S)) is not None:
            if not requests:
                continue
            try:
                self._run_pack(requests) if requests[0].key else self._run_alone(requests[0])
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                self._shrink()
            _free_memory()

    def _broker(self, method: str, *arguments: Any) -> Any:
        return ray.get(getattr(self.task.broker, method).remote(*arguments))

    def _tell(self, event: Event) -> None:
        """Without waiting, and nothing is lost where it does not arrive."""
        self.task.broker.tell.remote({"kind": "progress", "worker": self.name, **event})

    def _fail(self, attempt_id: str, reason: object) -> None:
        self._broker("post", {attempt_id: Report(failure=str(reason))})

    def _shrink(self) -> None:
        """Out of memory: half as many at once from now on, from their last reports. One alone fails."""
        held = self._broker("held", self.name)
        if len(held) == 1:
            self._fail(held[0], "out of memory, with no other trial beside it")
        elif held:
            self.most = len(held) // 2
            self._broker("lost", self.name, False)

    # -- a pack

    def _run_pack(self, requests: list[TrialRequest]) -> None:
        job = Job.model_validate(requests[0].tree)
        shared = self.task.shared(job)
        bank = Bank(shared.resolved(job), shared.rows(job).load(), self.worker, weights=shared.state())
        key, room = requests[0].key, min(requests[0].slots, self.most)
        progress: dict[str, TrialProgress] = {}
        while True:
            for request in requests:
                self._admit(bank, request, progress)
            if not bank.names:
                return
            start = time.perf_counter()
            results = bank.run_epoch(tick=Pulse(self._tell, len(bank.names), len(bank.train.table)))
            epoch_s = time.perf_counter() - start
            self._settle(bank, results, progress, epoch_s)
            free = room - len(bank.names)
            requests = self._broker("take", self.name, key, free, REFILL_SHARE * epoch_s) if free else []

    def _admit(self, bank: Bank, request: TrialRequest, progress: dict[str, TrialProgress]) -> None:
        job = Job.model_validate(request.tree)
        try:
            progress[request.attempt_id] = begun = self._begin(job, request.checkpoint)
            if begun.is_over(job.train):  # paused, handed on or cut off after its last epoch
                self._broker("post", {request.attempt_id: Report(finished=True)})
                return
            with as_folder(request.checkpoint) if request.checkpoint else nullcontext() as folder:
                bank.admit(request.attempt_id, job, resume_from=folder)
        except NotPackable as error:
            logger.info("trial %s runs alone: %s", request.trial, error)
            self._broker("put_back", request.attempt_id, request)
        except (RayLoraError, TrainingError) as error:
            self._fail(request.attempt_id, error)

    def _settle(
        self, bank: Bank, results: dict[str, EpochResult], progress: dict[str, TrialProgress], epoch_s: float
    ) -> None:
        """Report an epoch of every trial, and keep those that go on."""
        reports: dict[str, Report] = {}
        for attempt_id, result in results.items():
            if result.error:
                reports[attempt_id] = Report(failure=str(result.error))
                continue
            metrics = progress[attempt_id].add(result.metrics, epoch_s / len(results), len(results))
            with tempfile.TemporaryDirectory(prefix="raylora-") as scratch:
                bank.save(attempt_id, Path(scratch))
                files = progress[attempt_id].seal(read_files(scratch))
            reports[attempt_id] = Report(metrics, files, finished=result.finished)
        self._broker("post", reports)
        running = [attempt_id for attempt_id, report in reports.items() if not (report.finished or report.failure)]
        going = self._broker("decisions", running, DECISION_S)
        for attempt_id in reports:
            if attempt_id not in going:
                bank.drop(attempt_id)

    # -- alone

    def _run_alone(self, request: TrialRequest) -> None:
        job = Job.model_validate(request.tree)
        shared = self.task.shared(job)
        try:
            report = self._reporter(request.attempt_id, self._begin(job, request.checkpoint))
            with as_folder(request.checkpoint) if request.checkpoint else nullcontext() as folder:
                splits = shared.rows(job).load()
                log = of_one_trial(self._tell)
                fit(shared.resolved(job), splits, worker=self.worker, report=report, log=log, resume_from=folder)
            self._broker("post", {request.attempt_id: Report(finished=True)})
        except Left:
            return
        except (RayLoraError, TrainingError) as error:
            self._fail(request.attempt_id, error)

    def _reporter(self, attempt_id: str, progress: TrialProgress) -> Callable[[dict[str, Any], Path | None], None]:
        """What `fit` reports to; ends the fit where the trial is stopped."""
        start = time.perf_counter()

        def report(metrics: dict[str, Any], folder: Path | None) -> None:
            nonlocal start
            assert folder is not None, "the only process is rank 0"
            added = progress.add(metrics, time.perf_counter() - start, packed=1)
            self._broker("post", {attempt_id: Report(added, progress.seal(read_files(folder)))})
            if not self._broker("decisions", [attempt_id], DECISION_S):
                raise Left
            start = time.perf_counter()

        return report

    def _begin(self, job: Job, checkpoint: Files | None) -> TrialProgress:
        return read_progress(checkpoint) if checkpoint else self.task.shared(job).begin(job)


def _free_memory() -> None:
    """Of the pack before: its modules refer to each other, so that only a collection frees them."""
    gc.collect()
    torch.cuda.empty_cache()
