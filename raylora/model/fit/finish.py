"""The winner of a sweep: its weights on the base once more, scored, and saved as any adapter is."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import set_peft_model_state_dict
from safetensors.torch import load_file
from torch import Tensor
from transformers import set_seed

from raylora.config.space import WHOLE_EPOCHS
from raylora.floor import Floor, summary
from raylora.metrics import Scores
from raylora.model.collator import Collator
from raylora.model.fit.build import build
from raylora.model.fit.callback import BEST, Event
from raylora.model.fit.fit import fit, manifest_of
from raylora.model.fit.head import fold, units_of
from raylora.model.fit.settle import settle
from raylora.model.fit.splits import Splits, Worker
from raylora.model.lora.save import save_adapter, set_trainable_state
from raylora.model.predict import predict_logits
from raylora.model.resolved import ResolvedJob
from raylora.model.tokens import TokenTable


@dataclass(frozen=True)
class Finished:
    """`validation` chose this adapter among many and flatters it; `test` was never looked at before."""

    validation: Scores
    test: Scores | None
    trainable: int
    parameters: int
    dtype: str
    floor: dict[str, Any] | None
    learned: dict[str, Any]


def finish(
    resolved: ResolvedJob,
    splits: Splits,
    floor: Floor | None,
    checkpoint: Path,
    best_epoch: int,
    worker: Worker,
    save_to: Path,
) -> Finished:
    """Write the adapter of a trial's best epoch; with `tune.refit`, of one trained as long on validation rows too.

    Args:
        floor: of the sweep.
        checkpoint: a folder that the trial reported; holds the weights of its best epoch.
    """
    if worker.threads:
        torch.set_num_threads(worker.threads)
    job = resolved.job
    set_seed(job.seed)
    model: Any = build(resolved, splits.labels, splits.tokenizer.pad_id)
    set_trainable_state(model, load_file(checkpoint / BEST))
    model = model.to("cuda" if worker.use_gpu else "cpu").eval()
    trainable, parameters = model.get_nb_trainable_parameters()

    def logits(split: str) -> np.ndarray:
        table: TokenTable = getattr(splits, split)
        rows, pooling = job.train.per_device_eval_batch_size, splits.task.pool_windows
        return predict_logits(model, Collator(table, splits.tokenizer), rows, pooling)

    settled = settle(job, splits, model, logits("validation"))
    predicted, test = {"validation": settled.decisions}, None
    if job.tune.refit:
        del predicted["validation"]  # of the adapter before
        temperature = settled.calibration.temperature if settled.calibration else 1.0
        both = _together(splits)
        set_peft_model_state_dict(model, refit(resolved, both, best_epoch, worker))
        fold(model, units_of(both, model), temperature)
    if splits.test:
        outputs = logits("test")
        test, predicted["test"] = settled.score(outputs, splits.test.targets), settled.decide(outputs)
    beside = summary(floor, predicted, job.metric) if floor else None
    learned = settled.facts(splits.labels)
    done = Finished(settled.validation, test, trainable, parameters, resolved.dtype_name, beside, learned)
    # a refitted adapter has seen the validation rows: they say nothing about it
    known: Any = replace(done, validation=None) if job.tune.refit else done
    save_adapter(model, resolved.base, manifest_of(resolved, splits, known), save_to)
    return done


class _Trained(BaseException):
    """Ends a fit after its epochs, with the weights of the last."""


def refit(resolved: ResolvedJob, together: Splits, epochs: int, worker: Worker) -> dict[str, Tensor]:
    """Weights trained on train and validation rows: the trial's own schedule, ended after `epochs` of it.

    Returns:
        PEFT's state of the adapter; its head is in the units of these rows.
    """

    def report(metrics: Event, folder: Path | None) -> None:
        if folder and round(metrics["epoch"]) == epochs:
            raise _Trained(load_file(folder / "adapter_model.safetensors"))

    # no epoch is better than another here, and none may end it early
    resolved = resolved.replace({"train.early_stopping_patience": None, **WHOLE_EPOCHS})
    try:
        fit(resolved, together, worker=worker, report=report)
    except _Trained as trained:
        return trained.args[0]
    raise AssertionError(f"the fit reports each of its epochs, {epochs} among them")


def _together(splits: Splits) -> Splits:
    return replace(splits, train=_joined(splits.train, splits.validation), test=None)


def _joined(first: TokenTable, second: TokenTable) -> TokenTable:
    """Rows of both tables, which are over the same chunks."""
    return replace(
        first,
        rows=np.concatenate([first.rows, second.rows]),
        targets=np.concatenate([first.targets, second.targets]),
        lengths=np.concatenate([first.lengths, second.lengths]),
    )
