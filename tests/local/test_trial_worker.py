"""A worker of a sweep in this process, with its broker: memory that runs out, wherever it does, costs no trial."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import demo_splits, tiny_job

from raylora.cluster.placement import WorkerPlan
from raylora.cluster.tune import worker as module
from raylora.cluster.tune.broker import Broker, TrialRequest
from raylora.cluster.tune.checkpoints import Files
from raylora.cluster.tune.trial_progress import TrialProgress
from raylora.config import Job
from raylora.model.bank import Bank
from raylora.model.base.find import resolve
from raylora.model.fit.splits import Splits
from raylora.model.limits import is_out_of_memory
from raylora.model.packing import pack_key
from raylora.model.resolved import ResolvedJob

EPOCHS = 2


@dataclass
class Shared:
    """What `SharedBase` gives a worker, without Ray's object store."""

    splits: Splits

    def shared(self, job: Job) -> "Shared":
        return self

    def resolved(self, job: Job) -> ResolvedJob:
        return ResolvedJob(job, resolve(job.model))

    def rows(self, job: Job) -> "Shared":
        return self

    def load(self) -> Splits:
        return self.splits

    def state(self) -> None:
        return None

    def begin(self, job: Job) -> TrialProgress:
        return TrialProgress("loss", trainable_parameters=1, latency_ms=1.0)


class Loop:
    """An event loop in a thread of its own, for the broker."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(60)


@dataclass
class Sweep:
    """Three trials of two epochs at one worker. `packs` are the sizes of what it trained at once; a second `run` goes
    on from each trial's last checkpoint."""

    job: Job
    splits: Splits
    packs: list[int]
    last: dict[str, Files] = field(default_factory=dict[str, Files])

    def run(self, key: str | None = "packed") -> dict[str, list[Any]]:
        """By trial: the epochs that were reported, or why it failed."""
        here, broker = Loop(), Broker(total=3, concurrent=3, workers=1)

        class Worker(module.TrialWorker):
            def _broker(self, method: str, *arguments: Any) -> Any:
                return here.run(getattr(broker, method)(*arguments))

        async def sweep() -> list[list[Any]]:
            done = await asyncio.gather(*(self.trial(broker, name, key) for name in "abc"))
            await broker.close()
            return done

        found = asyncio.run_coroutine_threadsafe(sweep(), here.loop)
        task: Any = Shared(self.splits)
        task.plan = WorkerPlan(1, False, {}, 1)
        Worker("w", task).run()
        return dict(zip("abc", found.result(60), strict=True))

    async def trial(self, broker: Broker, name: str, key: str | None) -> list[Any]:
        """As `SweepTrainable` does it."""
        told: list[Any] = []
        request = TrialRequest(name, self.job.model_dump(), key and pack_key(self.job), 3, name, self.last.get(name))
        while True:
            attempt_id = await broker.submit(request)
            report = await broker.next(attempt_id)
            while not (report.finished or report.again or report.lost or report.failure):
                told.append(report.metrics["epoch"])
                self.last[name] = report.files
                request = TrialRequest(name, request.tree, request.key, 3, name, report.files)
                report = await broker.next(attempt_id)
            if report.metrics:
                told.append(report.metrics["epoch"])
                self.last[name] = report.files
            await broker.leave(attempt_id)
            if not report.again:
                return told + [report.failure or "lost"] * (report.lost or report.failure is not None)


@pytest.fixture
def sweep(bases: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Sweep]:
    job = tiny_job(bases("bert"), train__num_train_epochs=EPOCHS, train__metric_for_best_model="loss")
    packs: list[int] = []
    run_epoch = Bank.run_epoch

    def counted(bank: Bank, **more: Any) -> Any:
        packs.append(len(bank.names))
        return run_epoch(bank, **more)

    monkeypatch.setattr(Bank, "run_epoch", counted)
    yield Sweep(job, demo_splits(job, bases("bert"), 40), packs)


def scarce(monkeypatch: pytest.MonkeyPatch, owner: Any, method: str, times: int, error: Exception) -> None:
    """The method runs out of memory so many times, after its work is done, from its second call on."""
    whole, calls = getattr(owner, method), [0]

    def short(*arguments: Any, **more: Any) -> Any:
        done = whole(*arguments, **more)
        calls[0] += 1
        if 1 < calls[0] <= times + 1:
            raise error
        return done

    monkeypatch.setattr(owner, method, short)


DEVICE = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")
MACHINE = RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried")


@pytest.mark.parametrize(
    ("method", "error"),
    [("admit", DEVICE), ("_set_trials", MACHINE), ("run_epoch", DEVICE), ("save", MemoryError())],
)
def test_memory_that_runs_out_in_a_pack_makes_it_smaller_and_costs_no_trial(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch, method: str, error: Exception
) -> None:
    scarce(monkeypatch, Bank, method, 1, error)
    assert sweep.run() == {name: [1.0, 2.0] for name in "abc"}
    assert sweep.packs[-1] == 1, "half of three"


def test_memory_that_runs_out_after_the_last_epoch_costs_nothing(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    scarce(monkeypatch, Bank, "drop", 1, DEVICE)
    assert sweep.run() == {name: [1.0, 2.0] for name in "abc"}


def test_other_errors_are_no_lack_of_memory() -> None:
    assert all(map(is_out_of_memory, [DEVICE, MACHINE, MemoryError(), RuntimeError("CUDA error: out of memory")]))
    assert not any(map(is_out_of_memory, [RuntimeError("shape mismatch"), ValueError("out of memory")]))


def test_a_trial_that_does_not_fit_even_alone_fails_and_says_why(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    scarce(monkeypatch, Bank, "run_epoch", 99, torch.OutOfMemoryError("CUDA out of memory."))
    found = sweep.run()
    assert {told[-1] for told in found.values()} == {"out of memory, with no other trial beside it"}


def test_a_trial_that_runs_alone_and_does_not_fit_fails_and_the_next_one_runs(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    scarce(monkeypatch, module, "fit", 1, torch.OutOfMemoryError("CUDA out of memory."))
    found = sweep.run(key=None)
    assert sorted(map(len, found.values())) == [2, 2, 3]
    assert [told[-1] for told in found.values() if len(told) == 3] == ["out of memory, with no other trial beside it"]


@pytest.mark.parametrize("key", ["packed", None])
def test_a_trial_whose_end_was_not_told_trains_no_further_epoch(sweep: Sweep, key: str | None) -> None:
    """A sweep killed right after a trial's last report: the trial had stopped early, and goes on from there."""
    still = {"train.num_train_epochs": 9, "train.early_stopping_patience": 1, "train.learning_rate": 1e-12}
    sweep.job = sweep.job.replace(still)
    assert sweep.run(key) == {name: [1.0, 2.0] for name in "abc"}
    trained = len(sweep.packs)
    assert sweep.run(key) == {name: [] for name in "abc"}
    assert len(sweep.packs) == trained
