"""Ray Tune's schedulers, which know after a kill what they knew before.

Ray Tune 2.60 keeps a sweep's trials and its searcher, and never calls a scheduler's `save` and `restore`: a resumed
sweep's ASHA began with empty rungs, and HyperBand started every trial that it had paused. Here a scheduler is written
down whenever Ray Tune writes its own state, and before it. So it is as new as the trials, or newer by what a kill cut
off: an epoch that is reported again is decided as before, and each is counted once.
"""

import base64
import io
import logging
import math
import pickle
import random
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from copy import copy
from typing import Any

import numpy as np
from ray.cloudpickle import CloudPickler  # pyright: ignore[reportAttributeAccessIssue]
from ray.tune import Callback
from ray.tune.experiment import Trial
from ray.tune.schedulers import (
    ASHAScheduler,
    HyperBandScheduler,
    MedianStoppingRule,
    PopulationBasedTraining,
    TrialScheduler,
)

from raylora.cluster.storage.filesystem import Location
from raylora.cluster.tune.trial_progress import SCORES

logger = logging.getLogger(__name__)

MEMORY = "scheduler_state"  # beside Ray Tune's own state
SCORE = "score"  # of a report: the best so far of the sweep's metric, which is what the trial keeps
EPOCHS = "training_iteration"  # Ray Tune's count of reports: one an epoch, if no kill came between


class _Unknown:
    """Stands for a trial that a kill kept Ray Tune from knowing, until Ray Tune makes it again, by the same id."""

    def __init__(self, trial_id: str) -> None:
        self.trial_id = trial_id


class Remembering(TrialScheduler):
    """To be mixed into one of Ray Tune's schedulers.

    `seen` are the epochs of each trial that it has decided on; `over` the trials that it stopped, `paused` those that
    wait, `done` those that have ended, `held` those that it counts among its own.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.seen: dict[str, int] = {}
        self.over, self.paused, self.done, self.held = set[str](), set[str](), set[str](), set[str]()
        self.unknown: dict[str, _Unknown] = {}
        self.added: list[Trial] | None = []  # before the first step: all that there are
        self.memory: Location | None = None
        self.written = ""

    # -- what Ray Tune calls

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        if self.added is not None:
            self.added.append(trial)
            return
        if trial.trial_id not in self.held:  # else a kill kept Ray Tune from knowing it
            for state in (self.over, self.paused, self.done):
                state.discard(trial.trial_id)
            self.held.add(trial.trial_id)
        if (stand_in := self.unknown.pop(trial.trial_id, None)) is not None:
            self._put_in_place(stand_in, trial)
        else:
            super().on_trial_add(tune_controller, trial)

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        if self.added:
            self._begin(tune_controller)
        return super().choose_trial_to_run(tune_controller)

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        name, epoch = trial.trial_id, _epoch(result)
        if name in self.done:
            return self.STOP
        if epoch <= self.seen.get(name, 0):
            return self.STOP if name in self.over else self.CONTINUE if self.goes_on(trial) else self.PAUSE
        action = self.CONTINUE
        self.paused.discard(name)
        for each, score in _unseen(result, self.seen.get(name, 0)):
            action = super().on_trial_result(tune_controller, trial, {EPOCHS: each, SCORE: score})
            self.seen[name] = each
            if action != self.CONTINUE:
                break
        decided = {self.STOP: self.over, self.PAUSE: self.paused}.get(action, set())
        decided.add(name)
        return action

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        if trial.trial_id not in self.done:
            last = {EPOCHS: _epoch(result), SCORE: result.get(SCORE, math.nan)}
            super().on_trial_complete(tune_controller, trial, last)
            self.done.add(trial.trial_id)

    def on_trial_remove(self, tune_controller: Any, trial: Trial) -> None:
        if trial.trial_id not in self.done:
            super().on_trial_remove(tune_controller, trial)
            self.done.add(trial.trial_id)

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        self.held.discard(trial.trial_id)  # it is added anew where it is tried again
        super().on_trial_error(tune_controller, trial)

    # -- memory

    def goes_on(self, trial: Trial) -> bool:
        """Whether a trial that is not over takes another epoch now, or waits for others."""
        return trial.trial_id not in self.paused

    def kept(self) -> dict[str, Any]:
        """All that it knows."""
        own = ("added", "memory", "written", "unknown")
        return {name: value for name, value in vars(self).items() if name not in own and not callable(value)}

    def write(self) -> None:
        """Write down what it knows."""
        text = _dump(self.kept()) if self.memory else ""
        if self.memory and text != self.written:
            try:
                self.memory.write_text(text)
                self.written = text
            except OSError as error:
                logger.warning("%s was not written; a sweep killed now forgets decisions: %s", MEMORY, error)

    def _begin(self, tune_controller: Any) -> None:
        trials, self.added = self.added or [], None
        memory = memory_of(trials[0])
        if memory.exists():
            try:
                known: dict[str, Any] = {trial.trial_id: trial for trial in trials}
                vars(self).update(_load(memory.read_text(), known))
                self.unknown = {name: each for name, each in known.items() if isinstance(each, _Unknown)}
            except (pickle.UnpicklingError, LookupError, AttributeError, ValueError) as error:
                logger.warning("%s cannot be read, and the scheduler begins anew: %r", memory.address, error)
        self.memory = memory
        live = [trial for trial in trials if not trial.is_finished()]
        for trial in live:
            if trial.trial_id not in self.held:
                self.on_trial_add(tune_controller, trial)
        for trial in live:
            self._go_on(tune_controller, trial)

    def _put_in_place(self, stand_in: _Unknown, trial: Trial) -> None:
        """What is known of the one is the other's."""
        for kept in vars(self).values():
            if isinstance(kept, dict) and stand_in in kept:
                kept[trial] = kept.pop(stand_in)
            elif isinstance(kept, set) and stand_in in kept:
                kept.remove(stand_in)
                kept.add(trial)

    def _go_on(self, tune_controller: Any, trial: Trial) -> None:
        """Carry out what was decided on a trial, where a kill came before Ray Tune did. One whose last epochs Ray Tune
        does not know of reports them again, and is decided on then."""
        name, is_known = trial.trial_id, _epoch(trial.run_metadata.last_result) >= self.seen.get(trial.trial_id, 0)
        if is_known and (name in self.over or name in self.done):
            tune_controller._set_trial_status(trial, Trial.RUNNING)  # as one that ends by its own result
            tune_controller.stop_trial(trial)
        elif name in self.paused - self.done:  # HyperBand ends the sweep over one that is pending when it halves
            tune_controller._set_trial_status(trial, Trial.PAUSED)


class Asha(Remembering, ASHAScheduler):
    """ASHA with a memory."""


class MedianStopping(Remembering, MedianStoppingRule):
    """The median stopping rule with a memory."""


class HyperBand(Remembering, HyperBandScheduler):
    """HyperBand with a memory."""

    def goes_on(self, trial: Trial) -> bool:
        bracket, _ = self._trial_info[trial]
        return trial not in bracket.current_trials() or bracket.continue_trial(trial)


class PopulationBased(Remembering, PopulationBasedTraining):
    """PBT with a memory, whose draws are the seed's."""

    def __init__(self, seed: int, **settings: Any) -> None:
        super().__init__(**settings)
        self.seed = seed

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """A trial that takes over another's weights takes over its epoch, which may be an earlier one."""
        epoch = _epoch(result)
        with _drawn_by(self.seed, int(trial.trial_id.rpartition("_")[2]), epoch):
            return PopulationBasedTraining.on_trial_result(self, tune_controller, trial, {**result, EPOCHS: epoch})

    def kept(self) -> dict[str, Any]:
        return {**super().kept(), "_trial_state": {trial: _settled(each) for trial, each in self._trial_state.items()}}


class KeepScheduler(Callback):
    """Has a scheduler written down when Ray Tune writes its own state."""

    def __init__(self, scheduler: Remembering) -> None:
        self.scheduler = scheduler

    def get_state(self) -> None:
        self.scheduler.write()


def memory_of(trial: Trial) -> Location:
    """Where the scheduler of a trial's sweep is written down."""
    storage: Any = trial.storage
    path = f"{storage.experiment_fs_path}/{MEMORY}"
    return Location(path, storage.storage_filesystem, path)


def _epoch(result: Mapping[str, Any]) -> int:
    return round(result.get("epoch", 0))


def _unseen(result: Mapping[str, Any], seen: int) -> list[tuple[int, float]]:
    """The epochs up to a report that were not decided on, with their scores."""
    epoch, scores = _epoch(result), result.get(SCORES)
    if not scores:
        return [(epoch, result[SCORE])]
    return [(each, scores[each - 1]) for each in range(seen + 1, epoch + 1)]


def _settled(state: Any) -> Any:
    """PBT's state of a trial; its checkpoint may be one that is being saved."""
    state = copy(state)
    if hasattr(state.last_checkpoint, "resolve"):
        saved = state.last_checkpoint.resolve()
        state.last_checkpoint = saved.checkpoint if saved else None
    return state


class _Pickler(CloudPickler):  # pyright: ignore[reportUntypedBaseClass]
    """Trials by their ids: a resumed sweep makes them anew."""

    def persistent_id(self, obj: Any) -> str | None:
        return obj.trial_id if isinstance(obj, Trial | _Unknown) else None


def _dump(kept: dict[str, Any]) -> str:
    file = io.BytesIO()
    _Pickler(file).dump(kept)
    return base64.b64encode(file.getvalue()).decode()


def _load(text: str, trials: dict[str, Any]) -> dict[str, Any]:
    """What was dumped; trials that are not among these are put there as `_Unknown`."""
    unpickler: Any = pickle.Unpickler(io.BytesIO(base64.b64decode(text)))
    unpickler.persistent_load = lambda name: trials.setdefault(name, _Unknown(name))
    return unpickler.load()


@contextmanager
def _drawn_by(*seeds: int) -> Generator[None]:
    """What is drawn from Python's and numpy's own generators while this is open depends on the seeds alone."""
    before, numpy_before = random.getstate(), np.random.get_state()
    drawn = int(np.random.SeedSequence(seeds).generate_state(1)[0])
    random.seed(drawn)
    np.random.seed(drawn)
    try:
        yield
    finally:
        random.setstate(before)
        np.random.set_state(numpy_before)
