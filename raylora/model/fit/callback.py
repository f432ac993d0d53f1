"""What a fit keeps as it goes: the best weights, a report of every checkpoint, how far the run is."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback, set_seed

from raylora.errors import DivergedError
from raylora.floor import Floor
from raylora.metrics import Scores
from raylora.model.batches import BatchPlan
from raylora.model.lora.save import trainable_state
from raylora.model.resolved import ResolvedJob

if TYPE_CHECKING:
    from peft import PeftModel

BEST, FLOOR = "best.safetensors", "floor.json"

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
    """Keeps the best weights, reports every checkpoint, and says how far the run is.

    The best weights and the floor travel inside each checkpoint, so that any one checkpoint is enough to go on from.
    """

    def __init__(
        self,
        resolved: ResolvedJob,
        plan: BatchPlan,
        model: "PeftModel",
        report: Report,
        log: Callable[[Event], None] | None,
        resume_from: Path | None,
        floor: Floor | None,
    ) -> None:
        self.train, self.dtype = resolved.job.train, resolved.dtype_name
        self.plan, self.model, self.report, self.log = plan, model, report, log
        self.best: Best | None = None
        self.floor = floor
        self.evaluation_s = 0.0
        self.epochs_run = 0
        self.first_step = 0
        self.best_file = resume_from / BEST if resume_from else None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.start, self.first_step = time.perf_counter(), state.global_step
        self.last = _Mark(self.start, state.epoch or 0.0, self.evaluation_s)
        if self.best_file:
            evaluations = [record for record in state.log_history if "eval_loss" in record]
            best = next(r for r in evaluations if r["step"] == state.best_global_step)
            self.best = Best(load_file(self.best_file), _scores(best), best["epoch"])

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        epoch = round(state.epoch or 0)
        seeds = np.random.SeedSequence((args.seed, epoch, args.process_index)).generate_state(1)
        set_seed(int(seeds[0]))
        self.epochs_run += 1

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
        if self.log:
            place = {"step": state.global_step, "epoch": state.epoch, "dtype": self.dtype}
            self.log({"kind": "evaluation", **place, **metrics, **self._pace(state)})

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        evaluation = next(r for r in reversed(state.log_history) if "eval_loss" in r)
        if state.best_global_step == state.global_step or self.best is None:
            self.best = Best(trainable_state(self.model), _scores(evaluation), state.epoch)
        place = {"epoch": state.epoch, "step": state.global_step, "dtype": self.dtype}
        metrics = {**evaluation, **place, "global_batch_size": self.plan.global_batch_size}
        if args.should_save:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            save_file(self.best.state, folder / BEST)
            if self.floor:
                (folder / FLOOR).write_text(self.floor.to_json())
            self.report(metrics, folder)
        else:
            self.report(metrics, None)
        patience = self.train.early_stopping_patience
        if patience and round(state.epoch - self.best.epoch) >= patience:
            control.should_training_stop = True

    def _rows_per_s(self, state: Any) -> float:
        """Since the loss record before, of all workers together, without evaluations."""
        last, self.last = self.last, _Mark(time.perf_counter(), state.epoch, self.evaluation_s)
        taken = self.last.at - last.at - (self.last.evaluation_s - last.evaluation_s)
        return round((self.last.epoch - last.epoch) * len(self.plan.lengths) / taken, 1)

    def _pace(self, state: Any) -> Event:
        taken = time.perf_counter() - self.start
        done = state.global_step - self.first_step
        return {"taken_s": taken, "left_s": taken / done * (state.max_steps - state.global_step)}


def _scores(record: Event) -> Scores:
    return Scores(**{name: record[f"eval_{name}"] for name in ("accuracy", "f1", "loss", "rows")})
