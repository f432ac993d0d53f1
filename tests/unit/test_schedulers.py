"""A sweep killed after any of its epochs makes the decisions of one that nobody disturbed. Ray Tune's schedulers and
trials; a loop of a dozen lines stands for its controller, so that what it knows at a kill can be chosen."""

import copy
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.fs
import pytest
from ray.tune.experiment import Trial

from raylora.cluster.tune.schedulers import SCORE, KeepScheduler, Remembering
from raylora.cluster.tune.search import scheduler
from raylora.cluster.tune.trial_progress import SCORES
from raylora.config import Job
from raylora.config.space import Domain

EPOCHS, TRIALS = 4, 8
RATE = "train.learning_rate"


@dataclass(frozen=True)
class State:
    """Of a trial, as Ray Tune writes it."""

    has_ended: bool
    last_result: dict[str, Any]
    config: dict[str, Any]
    checkpoint: Any  # of another trial, which PBT has it go on from


@dataclass
class Controller:
    """As much of Ray Tune's controller as its schedulers ask for; trials run one epoch at a time."""

    scheduler: Remembering
    trials: list[Trial]
    search_alg: None = None
    trained: dict[str, list[float]] = field(default_factory=dict)  # scores by trial: what their checkpoints know
    steps: int = 0

    def __post_init__(self) -> None:
        for trial in self.trials:
            self.scheduler.on_trial_add(self, trial)

    def get_trials(self) -> list[Trial]:
        return self.trials

    def state(self) -> list[State]:
        return [state_of(each) for each in self.trials]

    def get_live_trials(self) -> list[Trial]:
        return [trial for trial in self.trials if not trial.is_finished()]

    def _set_trial_status(self, trial: Trial, status: str) -> None:
        trial.set_status(status)

    def pause_trial(self, trial: Trial, should_checkpoint: bool = True) -> None:
        trial.set_status(Trial.PAUSED)

    def stop_trial(self, trial: Trial) -> None:
        if trial.status == Trial.RUNNING:
            self.scheduler.on_trial_complete(self, trial, trial.run_metadata.last_result)
        else:
            self.scheduler.on_trial_remove(self, trial)
        trial.set_status(Trial.TERMINATED)

    def _schedule_trial_save(self, trial: Trial, result: Any) -> Any:
        scores = list(self.trained[trial.trial_id])
        return SimpleNamespace(scores=scores)

    def step(self) -> bool:
        """An epoch of the trial that comes next; False where none does."""
        chosen = self.scheduler.choose_trial_to_run(self)
        first = {status: [each for each in self.trials if each.status == status] for status in ("RUNNING", "PENDING")}
        trial = next(iter([*first["RUNNING"], *([chosen] if chosen else []), *first["PENDING"]]), None)
        if trial is None:
            return False
        trial.set_status(Trial.RUNNING)
        scores, known = self.trained.setdefault(trial.trial_id, []), trial.run_metadata.last_result.get("epoch", 0)
        taken_over, checkpoints(trial)._latest_checkpoint_result = checkpoints(trial)._latest_checkpoint_result, None
        if taken_over:
            scores[:] = taken_over.checkpoint.scores
        if taken_over or known == len(scores):
            scores.append(trial.config[RATE] * 10 + 0.1 * (EPOCHS - len(scores) - 1))
        report = {"epoch": len(scores), SCORE: scores[-1]} | ({SCORES: scores} if known < len(scores) - 1 else {})
        action = self.scheduler.on_trial_result(self, trial, report)
        self.steps += 1
        trial.run_metadata.last_result = {"epoch": len(scores), SCORE: scores[-1]}
        if action == "STOP" or len(scores) == EPOCHS:
            self.stop_trial(trial)
        elif action == "PAUSE":
            trial.set_status(Trial.PAUSED)
        KeepScheduler(self.scheduler).get_state()
        return True


def checkpoints(trial: Trial) -> Any:
    return trial.run_metadata.checkpoint_manager


def state_of(trial: Trial) -> State:
    taken_over = checkpoints(trial)._latest_checkpoint_result
    return State(trial.is_finished(), trial.run_metadata.last_result, trial.config, taken_over)


def made(name: str) -> Remembering:
    job = Job().replace({"tune.scheduler": name, "tune.metric": "loss", "tune.time_budget_s": 9})
    space = {RATE: Domain("loguniform", (0.001, 1.0))}
    found = scheduler(job, space, EPOCHS + (name == "hyperband"))
    assert isinstance(found, Remembering)
    return found


def trial(number: int, folder: Path) -> Trial:
    made = Trial("none", stub=True, trial_id=f"abcde_{number:05d}", config={RATE: 0.01 * (number + 1)})
    folder.mkdir(exist_ok=True)
    made.storage = SimpleNamespace(
        experiment_fs_path=str(folder),
        experiment_driver_staging_path=str(folder),
        storage_filesystem=pyarrow.fs.LocalFileSystem(),
    )
    return made


def begun(name: str, folder: Path) -> Controller:
    return Controller(made(name), [trial(number, folder) for number in range(TRIALS)])


def resumed(name: str, folder: Path, states: list[State], trained: dict[str, list[float]]) -> Controller:
    """As Ray Tune resumes: trials of the state, anew, and those that had not ended wait."""
    trials = [trial(number, folder) for number in range(len(states))]
    for each, state in zip(trials, states, strict=True):
        each.run_metadata.last_result = state.last_result
        each.set_status(Trial.TERMINATED if state.has_ended else Trial.PENDING)
        each.set_config(state.config)
        checkpoints(each)._latest_checkpoint_result = state.checkpoint
    trials.sort(key=lambda each: -len(trained.get(each.trial_id, [])))  # Ray Tune's order is by time
    return Controller(made(name), trials, trained=copy.deepcopy(trained))


def finished(controller: Controller) -> dict[str, int]:
    """The epochs of each trial when all have ended."""
    while controller.step():
        pass
    assert all(trial.is_finished() for trial in controller.trials)
    known = {trial.trial_id: trial.run_metadata.last_result.get("epoch", 0) for trial in controller.trials}
    return dict(sorted(known.items()))


@pytest.mark.parametrize("behind", [0, 1, 3], ids=lambda epochs: f"{epochs} epochs behind")
@pytest.mark.parametrize("name", ["asha", "median", "hyperband"])
def test_a_sweep_killed_after_any_epoch_ends_as_one_that_nobody_disturbed(
    tmp_path: Path, name: str, behind: int
) -> None:
    """Ray Tune's state may be behind the trials' checkpoints and what the scheduler wrote down."""
    whole = begun(name, tmp_path / "whole")
    expected = finished(whole)
    assert len(set(expected.values())) > 1, expected
    for moment in range(1, whole.steps):
        folder = tmp_path / str(moment)
        cut = begun(name, folder)
        states = [cut.state() for _ in range(moment) if cut.step()]
        again = resumed(name, folder, states[max(0, moment - 1 - behind)], cut.trained)
        found = finished(again)
        if name == "hyperband" and behind:  # one that it halves away while it waits is not asked for its last epochs
            assert [each == EPOCHS for each in found.values()] == [each == EPOCHS for each in expected.values()], moment
        else:
            assert found == expected, f"killed after {moment} epochs"


def test_pbt_killed_after_any_epoch_hands_on_the_same_weights_and_rates(tmp_path: Path) -> None:
    whole = begun("pbt", tmp_path / "whole")
    expected = finished(whole), [each.config for each in whole.trials]
    assert len({each.config[RATE] for each in begun("pbt", tmp_path).trials} - {each[RATE] for each in expected[1]}) > 1
    for moment in range(1, whole.steps):
        folder = tmp_path / str(moment)
        cut = begun("pbt", folder)
        assert all(cut.step() for _ in range(moment))
        again = resumed("pbt", folder, cut.state(), cut.trained)
        found = finished(again), [each.config for each in sorted(again.trials, key=lambda each: each.trial_id)]
        assert found == expected, f"killed after {moment} epochs"


def test_an_epoch_that_is_told_again_counts_once(tmp_path: Path) -> None:
    sweep = begun("median", tmp_path)
    for _ in range(3):
        sweep.step()
    scheduler, first = sweep.scheduler, sweep.trials[0]
    before = scheduler.kept()["seen"][first.trial_id]
    results = len(scheduler._results[first])  # pyright: ignore
    assert scheduler.on_trial_result(sweep, first, {"epoch": before, SCORE: 0.1}) == "PAUSE"  # as before
    assert len(scheduler._results[first]) == results  # pyright: ignore
