"""Many trials over one frozen base: one forward and backward for all of them."""

import copy
import tempfile
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from transformers import set_seed

from raylora.config import Job
from raylora.metrics import Scores
from raylora.model import packing
from raylora.model.bank.packed import PackedBase
from raylora.model.bank.trial import EpochResult, PackedTrial
from raylora.model.base.load import load_base, read_config
from raylora.model.base.precision import eager_when_short, train_in_fp32
from raylora.model.batches import MicroBatch
from raylora.model.collator import Collator
from raylora.model.fit.build import build
from raylora.model.fit.callback import Event
from raylora.model.fit.fit import batch_plan, training_arguments, use_frozen_states
from raylora.model.fit.head import units_of
from raylora.model.fit.splits import ALONE, Splits, Worker
from raylora.model.fit.start import Start, begin_from, local_start
from raylora.model.frozen_states import constant_layers, install
from raylora.model.lora.attach import attach_adapter, lora_config
from raylora.model.lora.dropout import BatchMasks
from raylora.model.losses import row_loss
from raylora.model.predict import in_order, run_batches
from raylora.model.resolved import ResolvedJob

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

EVAL_TOKENS = 4096  # of one forward, over all of its trials


@dataclass(frozen=True)
class Fold:
    """Of cross-validation: the train rows [N] bool that are not learned from, and a start that knows none of them."""

    held_out: np.ndarray
    start: Start


class Bank:
    """One frozen base that trains every admitted trial at once, each as `fit` would alone.

    Trials are admitted and dropped between epochs. They may be at different epochs: step s has equally many rows of
    about the same length in every epoch (`batches`).

    Args:
        resolved: of any trial; all others must have the same `packing.pack_key`.
        weights: of `load_base`.

    Raises:
        ConfigError, ModelError: the job does not fit the base, or it cannot be loaded.
    """

    def __init__(
        self,
        resolved: ResolvedJob,
        splits: Splits,
        worker: Worker = ALONE,
        weights: Mapping[str, Tensor] | None = None,
    ) -> None:
        if worker.threads:
            torch.set_num_threads(worker.threads)
        job, base = resolved.job, resolved.base
        self.key, self.worker, self.job, self.dtype = packing.pack_key(job), worker, job, resolved.dtype_name
        self.start, self.make_start = splits.start, partial(_own_start, resolved, splits, worker, weights)
        self.scratch = tempfile.TemporaryDirectory(prefix="raylora-")
        splits, depth = _with_frozen_states(resolved, splits, worker, weights, Path(self.scratch.name))
        self.plan = batch_plan(job, splits.train, worker)
        self.train, self.validation = (Collator(t, splits.tokenizer) for t in (splits.train, splits.validation))

        set_seed(job.seed)
        config = read_config(base, splits.labels, job.train.base_dropout, splits.task.problem_type)
        self.loaded = load_base(base, config, splits.tokenizer.pad_id, resolved.dtype, weights)
        self.drawn = torch.get_rng_state()
        self.task, self.units = splits.task, units_of(splits, self.loaded.model)
        self.row_loss = row_loss(job, splits, self.units)
        self.device = torch.device("cuda" if worker.use_gpu else "cpu")
        model = _frozen(self.loaded.model, self.device)
        if job.train.bf16:
            eager_when_short(model)
        if depth:
            install(model, depth)
        self.base = PackedBase(model, splits.tokenizer)
        self.trials: list[PackedTrial] = []

    @property
    def names(self) -> list[str]:
        return [trial.name for trial in self.trials]

    def admit(self, name: str, job: Job, resume_from: Path | None = None, fold: Fold | None = None) -> None:
        """Give a trial a place; its first weights are those it would draw alone.

        Args:
            resume_from: a folder that `save` wrote; hyperparameters are the new job's.
            fold: train rows that it must not learn from; None = it learns from all.

        Raises:
            ConfigError: the job does not fit the base.
            ModelError: the checkpoint does not fit the job.
            NotPackable: the base cannot hold this adapter beside others.
        """
        assert name not in self.names, f"trial {name} is already in the bank"
        assert packing.pack_key(job) == self.key, "a pack holds trials of one pack_key"
        args = training_arguments(job, self.plan, self.worker, scratch="")
        model = self._new_adapter(job, fold.start if fold else None)
        held_out = fold.held_out if fold else None
        trial = PackedTrial(name, job, model, args, self.plan.steps, self.device, held_out)
        if resume_from:
            trial.load(resume_from)
        new = self.base.inject_adapters(trial)
        self._set_trials([*self.trials, trial])
        if new:
            self._try_out(name)

    def drop(self, name: str) -> None:
        self._set_trials([trial for trial in self.trials if trial.name != name])

    def save(self, name: str, folder: Path) -> None:
        """Write a checkpoint that `admit` can go on from."""
        next(trial for trial in self.trials if trial.name == name).save(folder)

    def run_epoch(
        self,
        log: Callable[[str, Event], None] = lambda name, record: None,
        tick: Callable[[float], None] = lambda share: None,
    ) -> dict[str, EpochResult]:
        """Train every trial one epoch and score it on the validation split.

        Args:
            log: called with a trial's name and each record of its own: `loss`, `evaluation`.
            tick: called after each step with the share of the epoch's steps that are done.
        """
        assert not any(trial.over for trial in self.trials), "trials that have ended are dropped"
        self._train(log, tick)
        place = {"dtype": self.dtype, "global_batch_size": self.plan.global_batch_size}
        scores = zip(self.trials, self.scores(self.validation), strict=True)
        results = {trial.name: trial.end_epoch(its, place) for trial, its in scores}
        for name, result in results.items():
            log(name, {"kind": "evaluation", **result.metrics})
        return results

    def _set_trials(self, trials: list[PackedTrial]) -> None:
        self.trials = trials
        self.base.set_adapters(trials)

    def _new_adapter(self, job: Job, own: Start | None) -> "PeftModel":
        """As `fit.build` after `set_seed`; the base and its new head are drawn already.

        Args:
            own: where the head starts that may not know all rows of train.
        """
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self.drawn)
            base = _with_same_weights(self.loaded.model)
            model = attach_adapter(base, lora_config(job.lora, base, self.loaded.new_modules))
        if job.train.head_init == "probe":
            if own is None:
                own = self.start = self.start or self.make_start()
            begin_from(model, job, own)
        if self.job.train.bf16:
            train_in_fp32(model)
        return model

    def _try_out(self, name: str) -> None:
        """Two rows through a newcomer's layers; one that is not fed a row per row of the batch cannot be shared."""
        slot = self.names.index(name)
        try:
            with torch.inference_mode():
                self.base.logits(self.train(np.zeros(2, dtype=np.int64)), range(slot, slot + 1))
        except packing.NotPackable:
            self.drop(name)
            raise

    def _train(self, log: Callable[[str, Event], None], tick: Callable[[float], None]) -> None:
        self.base.model.train()
        plans = {epoch: self.plan.epoch(epoch) for epoch in sorted({trial.epoch for trial in self.trials})}
        for step in range(self.plan.steps if self.trials else 0):
            for _ in range(self.plan.accumulation_steps):
                self._backward({epoch: next(plan) for epoch, plan in plans.items()})
            for stack in self.base.stacks:
                stack.share_gradient()
            for trial in self.trials:
                trial.step(log)
            for stack in self.base.stacks:
                stack.values.grad = None
            tick((step + 1) / self.plan.steps)

    def _masks(self, micros: dict[int, MicroBatch]) -> list[BatchMasks]:
        """Of every trial's dropout, as `PlanTrainer` gives them; trials that drop the same share them."""
        kinds = [
            (trial.epoch, trial.job.lora.lora_dropout, self.base.pack.by_slot and trial.name) for trial in self.trials
        ]
        made: dict[Hashable, BatchMasks] = {}
        for kind in set(kinds):
            micro = micros[kind[0]]
            made[kind] = BatchMasks(micro.indices, self.job.seed, kind[0], micro.step, self.base.spec.pad_left)
        return [made[kind] for kind in kinds]

    def _backward(self, micros: dict[int, MicroBatch]) -> None:
        """Add one micro-batch of every trial to the gradients, scaled as `Trainer` and `PlanTrainer` scale it."""
        epochs, count = [trial.epoch for trial in self.trials], len(self.trials)
        collated = {epoch: self.train(micro.indices) for epoch, micro in micros.items()}
        batch = self.base.side_by_side([collated[epoch] for epoch in epochs])
        logits = self.base.logits(batch, range(count), self._masks(micros))
        losses = self.row_loss(logits, batch["labels"].to(self.device))
        shares = [micros[epoch].weight / self.plan.accumulation_steps for epoch in epochs]
        weights = torch.from_numpy(np.stack([trial.loss_weights(micros[trial.epoch].indices) for trial in self.trials]))
        losses = (losses.view(count, -1) * weights.to(losses)).mean(1) * torch.tensor(shares, device=self.device)
        losses.sum().backward()
        for trial, loss in zip(self.trials, losses.detach(), strict=True):
            trial.loss += loss

    def scores(self, split: Collator) -> list[Scores]:
        """Of every trial, with its weights of now, on a whole split, over the same batches as `PlanTrainer.logits`."""
        if not self.trials:
            return []
        self.base.model.eval()
        found = in_order(list(run_batches(split, self.job.train.per_device_eval_batch_size, self._logits)))
        outputs = (self.units.of(found[:, i]) for i in range(len(self.trials)))
        return [self.task.score(each, split.table.targets) for each in outputs]

    def outputs(self, name: str, split: Collator) -> np.ndarray:
        """[N, C] of a split by one trial at its best epoch, whose weights it has from then on; in the labels' own
        unit."""
        slot = self.names.index(name)
        self.trials[slot].restore_best()
        self.base.model.eval()
        forward = lambda batch: self.base.logits(batch, range(slot, slot + 1)).float().cpu().numpy()  # noqa: E731
        rows = self.job.train.per_device_eval_batch_size
        return self.units.of(in_order(list(run_batches(split, rows, forward))))

    def _logits(self, batch: dict[str, Tensor]) -> np.ndarray:
        """[B, trials, C] float32 of a batch by every trial."""
        rows, count = len(batch["attention_mask"]), len(self.trials)
        at_once = max(1, EVAL_TOKENS // batch["attention_mask"].numel())
        parts: list[Tensor] = []
        for start in range(0, count, at_once):
            slots = range(start, min(start + at_once, count))
            logits = self.base.logits(self.base.side_by_side([batch] * len(slots)), slots)
            parts.append(logits.float().cpu().view(len(slots), rows, -1))
        return torch.cat(parts).transpose(0, 1).numpy()


def _own_start(resolved: ResolvedJob, splits: Splits, worker: Worker, weights: Mapping[str, Tensor] | None) -> Start:
    """The head's start that `fit` would make."""
    rows = replace(splits, train=replace(splits.train, frozen_states=None))
    with torch.random.fork_rng(devices=[]):
        set_seed(resolved.job.seed)
        model: Any = build(resolved, splits.labels, splits.tokenizer.pad_id, weights)
    wanted = resolved.job.replace({"train.head_init": "probe", "train.floor": False})
    return local_start(wanted, rows, model.to("cuda" if worker.use_gpu else "cpu"))


def _with_frozen_states(
    resolved: ResolvedJob, splits: Splits, worker: Worker, weights: Mapping[str, Tensor] | None, scratch: Path
) -> tuple[Splits, int]:
    """The train and validation tables with the states that enter the pack's lowest adapted layer, and its number.

    None and 0 where a trial alone would have none there.
    """
    splits, lowest = replace(splits, test=None), packing.lowest_layer(resolved.job)
    if lowest:
        model = build(resolved, splits.labels, splits.tokenizer.pad_id, weights)
        if constant_layers(model) == lowest:
            return use_frozen_states(resolved.job, model, splits, worker, scratch), lowest
    train, validation = (replace(table, frozen_states=None) for table in (splits.train, splits.validation))
    return replace(splits, train=train, validation=validation), 0


def _frozen(model: "PreTrainedModel", device: torch.device) -> "PreTrainedModel":
    """The model over the same memory, or on another device."""
    own: Any = _with_same_weights(model) if device == model.device else copy.deepcopy(model)
    own.to(device)
    own.requires_grad_(False)
    return own


def _with_same_weights(model: "PreTrainedModel") -> "PreTrainedModel":
    """The model's modules anew, over the very same tensors."""
    tensors = [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})
