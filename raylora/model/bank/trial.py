"""One trial of a pack: what it would have alone in `fit`, but for the base."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from peft.tuners.lora import LoraLayer
from peft.utils import ModulesToSaveWrapper
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import Trainer, TrainingArguments, get_scheduler

from raylora.config import Job
from raylora.errors import ModelError, TrainingError
from raylora.metrics import Scores
from raylora.model.bank.layers import Projection
from raylora.model.fit.callback import BEST, Best, Event
from raylora.model.fit.rates import schedule_at
from raylora.model.packing import NotPackable

if TYPE_CHECKING:
    from peft import PeftModel

WEIGHTS, OPTIMIZER, PROGRESS = "weights.safetensors", "optimizer.pt", "progress.json"


@dataclass(frozen=True)
class EpochResult:
    """What an epoch brought one trial.

    `metrics` as `fit` reports them; `finished`: its epochs are done, or it no longer gets better; `error`: it diverged.
    A trial that finished or failed takes no further epoch and must be dropped.
    """

    metrics: Event
    finished: bool
    error: TrainingError | None


class PackedTrial:
    """Weights under PEFT's names, optimizer, schedule, dropout draws, the best epoch, and how far it is.

    Args:
        model: a PEFT model as `fit.build` makes it; its trainable parameters become the trial's.
        epoch_steps: optimizer steps of an epoch.
        held_out: [N] bool, train rows that it must not learn from; None = it learns from all.

    Raises:
        NotPackable: an adapted module is no plain linear layer.
    """

    def __init__(
        self,
        name: str,
        job: Job,
        model: "PeftModel",
        args: TrainingArguments,
        epoch_steps: int,
        device: torch.device,
        held_out: np.ndarray | None = None,
    ) -> None:
        self.name, self.job, self.epoch_steps, self.held_out = name, job, epoch_steps, held_out
        self.weights = {n: p for n, p in model.named_parameters() if p.requires_grad}
        for parameter in self.weights.values():  # in place: optimizer and modules keep the same objects
            parameter.data = parameter.data.to(device)
        self.projections, self.heads = _adapted(model)
        self.optimizer = _optimizer(model, args)
        total = epoch_steps * job.train.num_train_epochs
        self.schedule: Any = get_scheduler(
            args.lr_scheduler_type, self.optimizer, args.get_warmup_steps(total), num_training_steps=total
        )
        self.device = device
        self.epoch = self.steps = self.logged_step = 0
        self.loss = torch.zeros((), device=device)
        self.best: Best | None = None
        self.over = False

    def step(self, log: Callable[[str, Event], None]) -> None:
        """One optimizer step on the gradients that the parameters hold."""
        norm = nn.utils.clip_grad_norm_(list(self.weights.values()), self.job.train.max_grad_norm or math.inf)
        rate = self.schedule.get_last_lr()[0]
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.schedule.step()
        self.steps += 1
        if self.steps % self.job.train.logging_steps == 0:
            mean = self.loss.item() / (self.steps - self.logged_step)
            record = {"loss": mean, "grad_norm": norm.item(), "learning_rate": rate}
            log(self.name, {"kind": "loss", "step": self.steps, "epoch": self.steps / self.epoch_steps, **record})
            self.loss.zero_()
            self.logged_step = self.steps

    def end_epoch(self, scores: Scores, place: Event) -> EpochResult:
        """Keep the weights if they are the best so far; decide whether to go on, as `BestCheckpointCallback` does.

        Args:
            place: what the metrics say beside the scores.
        """
        self.epoch += 1
        train, epoch, metric = self.job.train, float(self.epoch), self.job.metric
        metrics = {**scores.as_dict("eval_"), "epoch": epoch, "step": self.steps, **place}
        if not math.isfinite(scores.loss):
            self.over = True
            return EpochResult(metrics, True, _diverged(scores.loss, self.epoch, train.learning_rate))
        if self.best is None or scores.merit(metric) > self.best.scores.merit(metric):
            self.best = Best(self.state(), scores, epoch)
        self.over = train.is_over(epoch, self.best.epoch)
        return EpochResult(metrics, self.over, None)

    def loss_weights(self, rows: np.ndarray) -> np.ndarray:
        """[B] float32 of train rows in the loss: their mean over an epoch is 1."""
        if self.held_out is None:
            return np.ones(len(rows), dtype=np.float32)
        return (~self.held_out[rows] / (1 - self.held_out.mean())).astype(np.float32)

    def restore_best(self) -> None:
        """Give the trial the weights of its best epoch."""
        assert self.best is not None, "a trial has a best epoch after its first"
        for name, parameter in self.weights.items():
            parameter.data.copy_(self.best.state[name])

    def state(self) -> dict[str, Tensor]:
        """A copy on the CPU of the weights now, as `save.trainable_state` gives them."""
        copies = {name: parameter.detach().to("cpu", copy=True) for name, parameter in self.weights.items()}
        return {name: copy.contiguous() for name, copy in copies.items()}

    def save(self, folder: Path) -> None:
        """A checkpoint for `load`; its `best.safetensors` is what `fit` reports under that name."""
        assert self.best is not None, "a trial is saved after an epoch"
        folder.mkdir(parents=True, exist_ok=True)
        save_file(self.best.state, folder / BEST)
        save_file(self.state(), folder / WEIGHTS)
        torch.save(self.optimizer.state_dict()["state"], folder / OPTIMIZER)
        best = {"epoch": self.best.epoch, "scores": self.best.scores.as_dict()}
        (folder / PROGRESS).write_text(json.dumps({"epoch": self.epoch, "step": self.steps, "best": best}))

    def load(self, folder: Path) -> None:
        """Go on from a checkpoint: its weights, moments and progress, under this job's own hyperparameters.

        Raises:
            ModelError: the folder is no checkpoint of the bank's, or of an adapter of another shape.
        """
        if not (folder / PROGRESS).is_file():
            raise ModelError(f"{folder} is not a checkpoint of a packed trial: {PROGRESS} is missing.")
        found = load_file(folder / WEIGHTS)
        if {n: t.shape for n, t in found.items()} != {n: p.shape for n, p in self.weights.items()}:
            raise ModelError(f"{folder} holds an adapter of another rank or other modules than trial {self.name}.")
        for name, parameter in self.weights.items():
            parameter.data.copy_(found[name])
        state = torch.load(folder / OPTIMIZER, weights_only=True, map_location=self.device)
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})
        progress = json.loads((folder / PROGRESS).read_text())
        self.epoch, self.steps = progress["epoch"], progress["step"]
        self.logged_step = self.steps
        self.best = Best(load_file(folder / BEST), Scores.of(progress["best"]["scores"]), progress["best"]["epoch"])
        self.over = self.job.train.is_over(self.epoch, self.best.epoch)
        self.schedule = schedule_at(self.steps, self.optimizer, self.schedule.lr_lambdas)


def _adapted(model: "PeftModel") -> tuple[dict[str, Projection], dict[str, nn.Module]]:
    """The adapter's parts by the name of the base's module."""
    projections: dict[str, Projection] = {}
    heads: dict[str, nn.Module] = {}
    inside: nn.Module = model.base_model.model  # pyright: ignore[reportAssignmentType]
    for name, module in inside.named_modules():
        if isinstance(module, ModulesToSaveWrapper):
            heads[name] = module.modules_to_save["default"]
        elif isinstance(module, LoraLayer):
            projections[name] = _projection(name, module)
    return projections, heads


def _projection(name: str, layer: Any) -> Projection:
    if type(layer.get_base_layer()) is not nn.Linear:
        raise NotPackable(f"{name} is a {type(layer.get_base_layer()).__name__}, not a linear layer.")
    dropout = layer.lora_dropout["default"]
    return Projection(
        a=layer.lora_A["default"].weight,
        b=layer.lora_B["default"].weight,
        scale=float(layer.scaling["default"]),
        dropout=float(dropout.p) if isinstance(dropout, nn.Dropout) else 0.0,
    )


def _optimizer(model: "PeftModel", args: TrainingArguments) -> torch.optim.Optimizer:
    """As `Trainer.create_optimizer`: biases and norms do not decay."""
    decaying = Trainer.get_decay_parameter_names(None, model)  # pyright: ignore[reportArgumentType] - reads no self
    kind, settings = Trainer.get_optimizer_cls_and_kwargs(args)
    own = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    groups = [
        {"params": [p for n, p in own if n in decaying], "weight_decay": args.weight_decay},
        {"params": [p for n, p in own if n not in decaying], "weight_decay": 0.0},
    ]
    return kind(groups, **settings)


def _diverged(loss: float, epoch: int, rate: float) -> TrainingError:
    return TrainingError(
        f"the loss is {loss} after epoch {epoch}: the run diverged. Lower `train.learning_rate` (now {rate})."
    )
