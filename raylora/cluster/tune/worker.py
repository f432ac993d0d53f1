"""A worker of a sweep: takes trials from the board and trains them, packed over one base or one alone."""

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

from raylora.cluster.placement import WorkerPlan
from raylora.cluster.tune.broker import Offer, Report
from raylora.cluster.tune.checkpoints import Files, as_folder, read_files
from raylora.cluster.tune.shared_base import Ground
from raylora.cluster.tune.trial_progress import Progress, read_progress
from raylora.config import Job
from raylora.errors import RayLoraError, TrainingError
from raylora.model.bank import Bank, Outcome
from raylora.model.base.find import here
from raylora.model.fit.fit import fit
from raylora.model.fit.splits import Worker
from raylora.model.packing import NotPackable

logger = logging.getLogger(__name__)

DECISION_S = 120.0  # a proxy answers in a fraction of a second; one that is silent for so long is dead
FIRST_FILL_S = 20.0  # proxies start one after another on few cores, 2 s each
REFILL_SHARE = 0.1  # of an epoch: what the trials that run may wait for the ones that come
NO_LIMIT = 1_000_000


@dataclass(frozen=True)
class SweepTask:
    """All that a worker needs, as it travels through Ray. `grounds` by `model.base_model`."""

    grounds: dict[str, Ground]
    plan: WorkerPlan
    board: Any

    def ground(self, job: Job) -> Ground:
        ground = self.grounds[job.model.base_model]
        return replace(ground, base=here(ground.base))


class Left(BaseException):
    """Unwinds a fit whose trial was stopped; not an error."""


class TrialWorker:
    """Runs trials until the sweep is over. One per GPU, or per `ray.resources_per_worker`."""

    def __init__(self, name: str, task: SweepTask) -> None:
        self.name, self.task, self.most = name, task, NO_LIMIT
        plan = task.plan
        self.worker = Worker(threads=None if plan.use_gpu else plan.threads, use_gpu=plan.use_gpu)
        if self.worker.threads:
            torch.set_num_threads(self.worker.threads)

    def run(self) -> None:
        while (offers := self._board("take", self.name, None, self.most, FIRST_FILL_S)) is not None:
            if offers and offers[0].key is None:
                self._run_alone(offers[0])
            elif offers:
                self._run_pack(offers)

    def _board(self, method: str, *arguments: Any) -> Any:
        return ray.get(getattr(self.task.board, method).remote(*arguments))

    def _fail(self, ticket: str, reason: object) -> None:
        self._board("post", {ticket: Report(failure=str(reason))})

    # -- a pack

    def _run_pack(self, offers: list[Offer]) -> None:
        job = Job.model_validate(offers[0].tree)
        ground = self.task.ground(job)
        bank = Bank(job, ground.base, ground.rows(job).load(), self.worker, weights=ground.state())
        key, room = offers[0].key, min(offers[0].places, self.most)
        progress: dict[str, Progress] = {}
        while True:
            for offer in offers:
                self._admit(bank, offer, progress)
            if not bank.names:
                return
            start = time.perf_counter()
            try:
                outcomes = bank.run_epoch()
            except torch.OutOfMemoryError:
                self._shrink(list(bank.names))
                return
            epoch_s = time.perf_counter() - start
            self._settle(bank, outcomes, progress, epoch_s)
            free = room - len(bank.names)
            offers = self._board("take", self.name, key, free, REFILL_SHARE * epoch_s) if free else []

    def _admit(self, bank: Bank, offer: Offer, progress: dict[str, Progress]) -> None:
        job = Job.model_validate(offer.tree)
        try:
            progress[offer.ticket] = begun = self._begin(job, offer.checkpoint)
            if begun.epochs >= job.train.num_train_epochs:  # paused or handed on by a scheduler after its last epoch
                self._board("post", {offer.ticket: Report(finished=True)})
                return
            with as_folder(offer.checkpoint) if offer.checkpoint else nullcontext() as folder:
                bank.admit(offer.ticket, job, resume_from=folder)
        except NotPackable as error:
            logger.info("trial %s runs alone: %s", offer.trial, error)
            self._board("put_back", offer.ticket, offer)
        except (RayLoraError, TrainingError) as error:
            self._fail(offer.ticket, error)

    def _settle(self, bank: Bank, outcomes: dict[str, Outcome], progress: dict[str, Progress], epoch_s: float) -> None:
        """Report an epoch of every trial, and keep those that go on."""
        reports: dict[str, Report] = {}
        for ticket, outcome in outcomes.items():
            if outcome.error:
                reports[ticket] = Report(failure=str(outcome.error))
                continue
            metrics = progress[ticket].add(outcome.metrics, epoch_s / len(outcomes), len(outcomes))
            with tempfile.TemporaryDirectory(prefix="raylora-") as scratch:
                bank.save(ticket, Path(scratch))
                files = progress[ticket].seal(read_files(scratch))
            reports[ticket] = Report(metrics, files, finished=outcome.finished)
        self._board("post", reports)
        running = [ticket for ticket, report in reports.items() if not (report.finished or report.failure)]
        going = self._board("decisions", running, DECISION_S)
        for ticket in reports:
            if ticket not in going:
                bank.drop(ticket)

    def _shrink(self, tickets: list[str]) -> None:
        """Out of memory: half as many at once from now on; these are tried again from their checkpoints."""
        if len(tickets) == 1:
            self._fail(tickets[0], "out of memory, with no other trial in the pack")
            return
        self.most = len(tickets) // 2
        torch.cuda.empty_cache()
        self._board("lost", self.name)

    # -- alone

    def _run_alone(self, offer: Offer) -> None:
        job = Job.model_validate(offer.tree)
        ground = self.task.ground(job)
        try:
            report = self._reporter(offer.ticket, self._begin(job, offer.checkpoint))
            with as_folder(offer.checkpoint) if offer.checkpoint else nullcontext() as folder:
                fit(job, ground.base, ground.rows(job).load(), worker=self.worker, report=report, resume_from=folder)
            self._board("post", {offer.ticket: Report(finished=True)})
        except Left:
            return
        except torch.OutOfMemoryError:
            self._fail(offer.ticket, "out of memory")
        except (RayLoraError, TrainingError) as error:
            self._fail(offer.ticket, error)

    def _reporter(self, ticket: str, progress: Progress) -> Callable[[dict[str, Any], Path | None], None]:
        """What `fit` reports to; ends the fit where the trial is stopped."""
        start = time.perf_counter()

        def report(metrics: dict[str, Any], folder: Path | None) -> None:
            nonlocal start
            assert folder is not None, "the only process is rank 0"
            added = progress.add(metrics, time.perf_counter() - start, packed=1)
            self._board("post", {ticket: Report(added, progress.seal(read_files(folder)))})
            if not self._board("decisions", [ticket], DECISION_S):
                raise Left
            start = time.perf_counter()

        return report

    def _begin(self, job: Job, checkpoint: Files | None) -> Progress:
        return read_progress(checkpoint) if checkpoint else self.task.ground(job).begin(job)
