"""HF's `Trainer` with three parts replaced: which rows are stepped, how their losses add up, how splits are scored."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from accelerate.utils import gather_object
from torch.utils.data import DataLoader, Dataset
from transformers import Trainer

from raylora.model.batches import BatchPlan, MicroBatch
from raylora.model.collator import Collator
from raylora.model.fit.head import Features, features, join
from raylora.model.lora.dropout import BatchMasks, dropout_context
from raylora.model.losses import RowLoss
from raylora.model.predict import Share, in_order, logits_of, run_batches
from raylora.model.windows import pooled_logits
from raylora.tasks import Task, Units


class _Rows(Dataset[Any]):
    """What `DataLoader` fetches a micro-batch from: it is collated as it is."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitems__(self, batch: MicroBatch) -> MicroBatch:
        return batch


class _PlannedBatches:
    """This worker's micro-batches of an epoch, as the batch sampler that `Trainer` skips in when a run goes on.

    Args:
        epoch: says which one is under way.
    """

    def __init__(self, plan: BatchPlan, epoch: Callable[[], int]) -> None:
        self.plan, self.epoch = plan, epoch

    def __len__(self) -> int:
        return self.plan.steps * self.plan.accumulation_steps

    def __iter__(self) -> Iterator[MicroBatch]:
        return self.plan.epoch(self.epoch())


class PlanTrainer(Trainer):
    """`Trainer` over a `BatchPlan`; scores are exact over whole splits, whatever the number of workers.

    Args:
        units: of the model's outputs.
        row_loss: of `losses.row_loss`.
    """

    def __init__(
        self,
        *,
        plan: BatchPlan,
        train: Collator,
        validation: Collator,
        task: Task,
        units: Units,
        row_loss: RowLoss,
        **kwargs: Any,
    ) -> None:
        rows = _Rows(len(train.table))
        super().__init__(train_dataset=rows, eval_dataset=validation.table, **kwargs)  # pyright: ignore
        self.task, self.units, self.row_loss = task, units, row_loss
        self.plan, self.rows, self.train_split, self.validation = plan, rows, train, validation
        self.dropout = dropout_context(self.model)  # pyright: ignore[reportArgumentType]

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """`Trainer` asks whether to stop only after a step; a run that goes on may be at its end already."""
        if not self.control.should_training_stop:
            super()._run_epoch(*args, **kwargs)

    def get_train_dataloader(self) -> DataLoader:
        batches: Any = _PlannedBatches(self.plan, self._epoch)
        collate: Any = self._collate
        return DataLoader(self.rows, batch_sampler=batches, collate_fn=collate)

    def _epoch(self) -> int:
        return self.state.global_step // self.plan.steps

    def _collate(self, micro: MicroBatch) -> dict[str, Any]:
        pad_left = self.train_split.spec.pad_left
        masks = BatchMasks(self.train_split.numbers(micro.indices), self.plan.seed, self._epoch(), micro.step, pad_left)
        return {**self.train_split(micro.indices), "weight": micro.weight, "masks": masks}

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        weight, targets = inputs.pop("weight"), inputs.pop("labels")
        with self.dropout.of(inputs.pop("masks")):
            logits = pooled_logits(model, inputs, self.task.pool_windows)
        loss = self.row_loss(logits, targets).mean()
        return loss if weight == 1 else loss * weight

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:  # pyright: ignore[reportIncompatibleMethodOverride]
        scores = self.task.score(self.units.of(self.logits(self.validation)), self.validation.table.targets)
        metrics = scores.as_dict("eval_")
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def logits(self, collator: Collator) -> np.ndarray:
        """[N, C] float32 of every row, in table order, on every worker."""
        model: Any = self.model
        model.eval()
        rows, forward = self.args.per_device_eval_batch_size, logits_of(model, self.task.pool_windows)
        mine = list(run_batches(collator, rows, forward, self.args.device, self._share))
        return in_order(gather_object(mine) if self.args.world_size > 1 else mine)

    def features(self, collator: Collator) -> Features:
        """What the frozen base says of every row, in table order, on every worker; asked before training."""
        mine = features(self.model, collator, self.args.per_device_eval_batch_size, self._share)
        return join(gather_object(mine) if self.args.world_size > 1 else mine)

    @property
    def _share(self) -> Share:
        return self.args.process_index, self.args.world_size

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        return 0  # the estimate walks all modules at every step (1 ms of a 50 ms step) and is printed nowhere

    def _save_rng_state(self, output_dir: str) -> None:
        """Nothing to save: every step's draws are seeded anew, so a run resumes with the same."""
