"""HF's `Trainer` with three parts replaced: which rows are stepped, how their losses add up, how splits are scored."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from accelerate.utils import gather_object
from torch.utils.data import DataLoader
from transformers import Trainer

from raylora.metrics import score
from raylora.model.batches import BatchPlan
from raylora.model.fit.head import Features, features, join
from raylora.model.predict import Share, in_order, logits_of, run_batches
from raylora.model.tokens import Collator


class PlannedBatches:
    """This worker's micro-batches of each epoch, as the sized, re-iterable loader that `Trainer` counts epochs by."""

    def __init__(self, plan: BatchPlan, collator: Collator) -> None:
        self.plan, self.collator, self.epoch = plan, collator, 0
        self.dataset = range(len(plan.lengths))  # `Trainer` reads its length as the number of samples

    def __len__(self) -> int:
        return self.plan.steps * self.plan.accumulation_steps

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for micro in self.plan.epoch(self.epoch):
            yield {**self.collator(micro.indices), "weight": micro.weight}


class PlanTrainer(Trainer):
    """`Trainer` over a `BatchPlan`; scores are exact over whole splits, whatever the number of workers."""

    def __init__(self, *, batches: PlannedBatches, validation: Collator, **kwargs: Any) -> None:
        super().__init__(train_dataset=batches.dataset, eval_dataset=validation.table, **kwargs)  # pyright: ignore
        self.batches, self.validation = batches, validation

    def get_train_dataloader(self) -> DataLoader:
        return self.batches  # pyright: ignore[reportReturnType]

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        weight = inputs.pop("weight")
        loss = super().compute_loss(model, inputs, *args, **kwargs)
        return loss if weight == 1 else loss * weight

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:  # pyright: ignore[reportIncompatibleMethodOverride]
        scores = score(self.logits(self.validation), self.validation.table.label_ids)
        metrics = scores.as_dict("eval_")
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def logits(self, collator: Collator) -> np.ndarray:
        """[N, C] float32 of every row, in table order, on every worker."""
        model: Any = self.model
        model.eval()
        rows = self.args.per_device_eval_batch_size
        mine = list(run_batches(collator, rows, logits_of(model), self.args.device, self._share))
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
        """Nothing to save: every epoch is seeded by (seed, epoch, rank), so a run resumes with the same draws."""
