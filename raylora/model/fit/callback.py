"""What a fit keeps as it goes: the best weights, checkpoints and their reports, how far the run is."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate.utils import broadcast_object_list
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback

from raylora.errors import DivergedError
from raylora.floor import Floor
from raylora.metrics import Scores
from raylora.model.batches import BatchPlan
from raylora.model.lora.save import trainable_state
from raylora.model.resolved import ResolvedJob

if TYPE_CHECKING:
    from peft import PeftModel

BEST, FLOOR = "best.safetensors", "floor.json"
PROGRESS_S = 2.0  # between two records of how far an epoch is: a line on a terminal is drawn over as often
ASK_STEPS = 8  # between two questions that all workers answer together, which takes some milliseconds

Event = dict[str, Any]
Report = Callable[[Event, Path | None], None]


@dataclass
class Best:
    state: dict[str, torch.Tensor]
    scores: Scores
    epoch: float


@dataclass(frozen=True)
class _Mark:
    """A moment of the fit. `evaluation_s`: of all evaluations before it."""

    at: float
    epoch: float
    evaluation_s: float


class BestCheckpointCallback(TrainerCallback):
    """Keeps the best weights, saves within epochs, reports every checkpoint, and says how far the run is.

    The best weights and the floor travel inside each checkpoint, so that any one checkpoint is enough to go on from.
    The best are chosen among whole epochs, by their evaluations.
    """

    def __init__(
        self,
        resolved: ResolvedJob,
        plan: BatchPlan,
        model: "PeftModel",
        report: Report,
        save_now: Callable[[], str | None],
        log: Callable[[Event], None] | None,
        resume_from: Path | None,
        floor: Floor | None,
    ) -> None:
        self.train, self.metric, self.dtype = resolved.job.train, resolved.job.metric, resolved.dtype_name
        self.plan, self.model, self.report, self.save_now, self.log = plan, model, report, save_now, log
        self.best: Best | None = None
        self.floor = floor
        self.evaluation_s = 0.0
        self.first_step = 0
        self.best_file = resume_from / BEST if resume_from else None
        self.saved_at = time.perf_counter()
        self.reason: str | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.start, self.first_step = time.perf_counter(), state.global_step
        self.last = _Mark(self.start, state.epoch or 0.0, self.evaluation_s)
        self.told_at = self.start
        if self.best_file and self.best_file.exists():  # not within the first epoch
            evaluations = [record for record in state.log_history if "eval_loss" in record]
            best = next(r for r in evaluations if r["step"] == state.best_global_step)
            self.best = Best(load_file(self.best_file), Scores.of(best, "eval_"), best["epoch"])
            control.should_training_stop = self._is_over(state)  # a kill came between its last checkpoint and its end

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.epoch_start = _Mark(time.perf_counter(), state.global_step / self.plan.steps, self.evaluation_s)

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """What draws from torch's own generator, as the base's dropout, draws the same in a run that goes on here."""
        seeds = np.random.SeedSequence((args.seed, state.global_step, args.process_index)).generate_state(1)
        torch.manual_seed(int(seeds[0]))

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Decides on a checkpoint within the epoch, on every worker alike; its end has one of its own."""
        self.reason = self._reason_to_save(state.global_step) if state.global_step % self.plan.steps else None
        control.should_save = control.should_save or self.reason is not None
        self._tell_progress(state)

    def _tell_progress(self, state: Any) -> None:
        """Within an epoch that takes long; its end has a line of its own."""
        now = time.perf_counter()
        if state.global_step % self.plan.steps == 0:
            self.told_at = now
        elif self.log and now - self.told_at >= PROGRESS_S:
            self.told_at = now
            place = {"step": state.global_step, "steps": state.max_steps, "epoch": state.epoch}
            self.log({"kind": "progress", **place, **self._pace(state), **self._epoch_pace(state)})

    def _reason_to_save(self, step: int) -> str | None:
        train = self.train
        if train.save_steps and step % train.save_steps == 0:
            return "train.save_steps"
        if (step - self.first_step) % ASK_STEPS:
            return None
        if reason := self.save_now():
            return reason
        if train.save_minutes:
            due = [time.perf_counter() - self.saved_at >= 60 * train.save_minutes]
            return "train.save_minutes" if broadcast_object_list(due)[0] else None  # clocks differ: the first one's
        return None

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.evaluation_start = time.perf_counter()

    def on_log(self, args: Any, state: Any, control: Any, logs: Event | None = None, **_: Any) -> None:
        if self.log and logs and "loss" in logs:
            place = {"step": state.global_step, "epoch": state.epoch}
            self.log({"kind": "loss", **place, **logs, "rows_per_s": self._rows_per_s(state)})

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Event | None = None, **_: Any) -> None:
        assert metrics is not None, "PlanTrainer.evaluate passes them"
        self.evaluation_s += time.perf_counter() - self.evaluation_start
        if not math.isfinite(metrics["eval_loss"]):
            raise DivergedError(
                f"the loss is {metrics['eval_loss']} after epoch {round(state.epoch)}: the run diverged. "
                f"Lower `train.learning_rate` (now {self.train.learning_rate})."
            )
        scores, metric = Scores.of(metrics, "eval_"), self.metric
        if self.best is None or scores.merit(metric) > self.best.scores.merit(metric):
            self.best = Best(trainable_state(self.model), scores, state.epoch)
            state.best_global_step = state.global_step
        if self.log:
            place = {"step": state.global_step, "epoch": state.epoch, "dtype": self.dtype}
            self.log({"kind": "evaluation", **place, **metrics, **self._pace(state)})

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        is_whole = state.global_step % self.plan.steps == 0
        evaluation = next(r for r in reversed(state.log_history) if "eval_loss" in r) if is_whole else {}
        place = {"epoch": state.epoch, "step": state.global_step, "dtype": self.dtype}
        metrics = {**evaluation, **place, "global_batch_size": self.plan.global_batch_size}
        self.report(metrics, self._complete(args, state) if args.should_save else None)
        self.saved_at = time.perf_counter()
        if self.log and not is_whole:
            self.log({"kind": "checkpoint", "step": state.global_step, "epoch": state.epoch, "reason": self.reason})
        control.should_training_stop = control.should_training_stop or self._is_over(state)

    def _is_over(self, state: Any) -> bool:
        is_whole = state.global_step % self.plan.steps == 0
        return is_whole and self.best is not None and self.train.is_over(state.epoch, self.best.epoch)

    def _complete(self, args: Any, state: Any) -> Path:
        """The checkpoint that `Trainer` has written, with what it does not know of."""
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if self.best:
            save_file(self.best.state, folder / BEST)
        if self.floor:
            (folder / FLOOR).write_text(self.floor.to_json())
        return folder

    def _rows_per_s(self, state: Any) -> float:
        """Since the loss record before, of all workers together, without evaluations."""
        last, self.last = self.last, _Mark(time.perf_counter(), state.epoch, self.evaluation_s)
        taken = self.last.at - last.at - (self.last.evaluation_s - last.evaluation_s)
        return round((self.last.epoch - last.epoch) * len(self.plan.lengths) / taken, 1)

    def _epoch_pace(self, state: Any) -> Event:
        """Of this epoch; `epoch_left_s` without its evaluation."""
        taken, done = time.perf_counter() - self.epoch_start.at, state.epoch - self.epoch_start.epoch
        rate = done * len(self.plan.lengths) / taken
        return {"rows_per_s": round(rate, 1), "epoch_left_s": taken / done * (1 - state.epoch % 1)}

    def _pace(self, state: Any) -> Event:
        taken = time.perf_counter() - self.start
        done = state.global_step - self.first_step
        return {"taken_s": taken, "left_s": taken / done * (state.max_steps - state.global_step)}
