"""One fit: the base, a new adapter, and HF's `Trainer` loop; the same in a plain process and on N Ray Train workers.

Ray is reached only through `report`; nothing here knows it.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainingArguments, set_seed

from raylora.config import Job
from raylora.floor import summary
from raylora.metrics import Scores
from raylora.model.base.find import weights_digest
from raylora.model.base.load import pooling_of
from raylora.model.batches import BatchPlan
from raylora.model.collator import Collator
from raylora.model.fit.build import build
from raylora.model.fit.callback import BestCheckpointCallback, Event, Report
from raylora.model.fit.head import units_of
from raylora.model.fit.rates import OwnHyperparameters
from raylora.model.fit.settle import settle
from raylora.model.fit.splits import ALONE, Splits, Worker
from raylora.model.fit.start import begin
from raylora.model.fit.trainer import PlanTrainer
from raylora.model.frozen_states import agrees, constant_layers, fill, frozen_states_bytes, install, uninstall
from raylora.model.lora.manifest import Manifest
from raylora.model.lora.save import save_adapter, set_trainable_state
from raylora.model.losses import row_loss
from raylora.model.resolved import ResolvedJob
from raylora.model.tokens import TokenTable
from raylora.version import __version__

if TYPE_CHECKING:
    from peft import PeftModel


@dataclass(frozen=True)
class FitResult:
    """What a finished fit yields, equal on every worker. `epoch` is the best one, whose adapter is in the model.

    `dtype` is the precision the base was held in, for training and for the scores: `float32` or `bfloat16`. `floor` is
    of `floor.summary`; None on workers but the first, and where `train.floor` is off or was decided beforehand.
    `learned` is of `Settled.facts`.
    """

    model: "PeftModel"
    validation: Scores
    test: Scores | None
    dtype: str
    epoch: float
    trainable: int
    parameters: int
    train_s: float
    steps: int
    rows: int
    tokens: int
    floor: dict[str, Any] | None
    learned: dict[str, Any]


def fit(
    resolved: ResolvedJob,
    splits: Splits,
    *,
    worker: Worker = ALONE,
    report: Report = lambda metrics, checkpoint: None,
    log: Callable[[Event], None] = lambda record: None,
    save_now: Callable[[], str | None] = lambda: None,
    resume_from: Path | None = None,
    save_to: Path | None = None,
) -> FitResult:
    """Train a LoRA adapter; leave the best epoch's weights in the model.

    Args:
        report: called on every worker after each evaluation, with its metrics, and at each checkpoint within an epoch,
            with only its place; on rank 0 also with the checkpoint folder to copy before returning.
        log: called on rank 0 with each record: `model`, `head`, `floor`, `loss`, `checkpoint`, `evaluation`,
            `calibration`.
        save_now: why a checkpoint is wanted within the epoch, or None; asked on every worker at the same steps, and to
            answer the same on all of them.
        resume_from: a folder that `report` was given earlier; hyperparameters are this job's.
        save_to: where rank 0 writes the adapter; written only when all is done.

    Raises:
        ConfigError, ModelError: the config does not fit the base.
        TrainingError: the loss is not finite.
    """
    if worker.threads:
        torch.set_num_threads(worker.threads)
    job = resolved.job
    set_seed(job.seed)
    model = build(resolved, splits.labels, splits.tokenizer.pad_id)
    trainable, parameters = model.get_nb_trainable_parameters()
    if worker.rank == 0:
        log({"kind": "model", "trainable": trainable, "parameters": parameters, "threads": torch.get_num_threads()})

    with tempfile.TemporaryDirectory(prefix="raylora-") as scratch:
        splits = use_frozen_states(job, model, splits, worker, Path(scratch))
        plan, units = batch_plan(job, splits.train, worker), units_of(splits, model)
        trainer = PlanTrainer(
            model=model,
            args=training_arguments(job, plan, worker, scratch),
            plan=plan,
            train=Collator(splits.train, splits.tokenizer),
            validation=Collator(splits.validation, splits.tokenizer),
            task=splits.task,
            units=units,
            row_loss=row_loss(job, splits, units),
        )
        main_log = log if worker.rank == 0 else None
        beginning = begin(job, splits, model, trainer.features, resume_from, main_log)
        best_checkpoint = BestCheckpointCallback(
            resolved, plan, model, report, save_now, main_log, resume_from, beginning.floor
        )
        trainer.add_callback(best_checkpoint)
        if resume_from:
            trainer.add_callback(OwnHyperparameters(trainer.create_optimizer()))
        for printer in ("PrinterCallback", "ProgressCallback"):
            for callback in [c for c in trainer.callback_handler.callbacks if type(c).__name__ == printer]:
                trainer.remove_callback(callback)
        start = time.perf_counter()
        trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
        train_s = time.perf_counter() - start
        steps = trainer.state.global_step - best_checkpoint.first_step

        assert best_checkpoint.best is not None, "every run evaluates at least once"
        set_trainable_state(model, best_checkpoint.best.state)
        settled = settle(job, splits, model, trainer.logits(trainer.validation))
        if main_log and settled.calibration:
            place = {"step": trainer.state.global_step, "epoch": trainer.state.epoch}
            main_log({"kind": "calibration", **place, **asdict(settled.calibration)})
        predicted, test = {"validation": settled.decisions}, None
        if splits.test:
            logits = trainer.logits(Collator(splits.test, splits.tokenizer))
            test, predicted["test"] = settled.score(logits, splits.test.targets), settled.decide(logits)
        fitted = FitResult(
            model=model,
            validation=settled.validation,
            test=test,
            dtype=resolved.dtype_name,
            epoch=best_checkpoint.best.epoch,
            trainable=trainable,
            parameters=parameters,
            train_s=train_s - best_checkpoint.evaluation_s,
            steps=steps,
            rows=round(steps / plan.steps * len(splits.train)),
            tokens=round(steps / plan.steps * int(splits.train.lengths.sum())),
            floor=summary(beginning.floor, predicted, job.metric) if beginning.floor and worker.rank == 0 else None,
            learned=settled.facts(splits.labels),
        )
        if save_to and worker.rank == 0:
            save_adapter(model, resolved.base, manifest_of(resolved, splits, fitted), save_to)
        uninstall(model.get_base_model())  # pyright: ignore[reportArgumentType]
        return fitted


def use_frozen_states(job: Job, model: "PeftModel", splits: Splits, worker: Worker, scratch: Path) -> Splits:
    """The splits with the states that enter the lowest trained layer, and the model made to start from them.

    They are computed here where the splits do not bring them, and left out where nothing below is constant.
    """
    base: Any = model.get_base_model()
    depth = constant_layers(model)
    names = ("train", "validation", "test") if splits.test else ("train", "validation")
    tables: list[TokenTable] = [getattr(splits, name) for name in names]
    if not depth:
        tables = [replace(table, frozen_states=None) for table in tables]
    elif tables[0].frozen_states is None:
        base.to("cuda" if worker.use_gpu else "cpu")
        folder = (
            scratch / "frozen_states"
            if frozen_states_bytes(tables, base) > job.train.frozen_states_cache_bytes
            else None
        )
        tables = fill(tables, splits.tokenizer, base, depth, job.train.per_device_eval_batch_size, folder)
    else:
        assert agrees(tables[0], splits.tokenizer, base, depth), "frozen states of another depth or base"
    if depth:
        install(base, depth)
    return replace(splits, **dict(zip(names, tables, strict=True)))


def batch_plan(job: Job, table: TokenTable, worker: Worker) -> BatchPlan:
    train = job.train
    per_step = train.per_device_train_batch_size * train.gradient_accumulation_steps
    return BatchPlan(
        lengths=table.lengths,
        seed=job.seed,
        global_batch_size=worker.global_batch_size or per_step * worker.world_size,
        micro_batch_size=train.per_device_train_batch_size,
        rank=worker.rank,
        world_size=worker.world_size,
    )


def training_arguments(job: Job, plan: BatchPlan, worker: Worker, scratch: str) -> TrainingArguments:
    train = job.train
    return TrainingArguments(
        output_dir=scratch,
        num_train_epochs=train.num_train_epochs,
        learning_rate=train.learning_rate,
        per_device_train_batch_size=train.per_device_train_batch_size,
        per_device_eval_batch_size=train.per_device_eval_batch_size,
        gradient_accumulation_steps=plan.accumulation_steps,
        optim=train.optim,
        weight_decay=train.weight_decay,
        max_grad_norm=train.max_grad_norm,
        lr_scheduler_type=train.lr_scheduler_type,
        warmup_steps=train.warmup_steps,
        logging_steps=train.logging_steps,
        logging_nan_inf_filter=False,  # a loss that is not a number must be seen
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=1,
        use_cpu=not worker.use_gpu,
        seed=job.seed,
        remove_unused_columns=False,
        average_tokens_across_devices=False,
        ddp_find_unused_parameters=False,  # every LoRA matrix takes part in every step
        ddp_backend=None if worker.world_size == 1 else "nccl" if worker.use_gpu else "gloo",
        dataloader_pin_memory=worker.use_gpu,
        report_to=[],
        disable_tqdm=True,
    )


def manifest_of(resolved: ResolvedJob, splits: Splits, fitted: FitResult) -> Manifest:
    job, base = resolved.job, resolved.base
    scores = {"validation": fitted.validation, "test": fitted.test}
    return Manifest(
        labels=splits.labels,
        base_model=base.id,
        revision=base.revision,
        base_digest=base.digest or weights_digest(base),
        max_length=job.data.max_length,
        truncation=job.data.truncation,
        stride=job.data.stride,
        max_windows=job.data.max_windows,
        problem_type=splits.task.problem_type,
        is_pair=job.data.text_pair_column is not None,
        **fitted.learned,
        pooling=pooling_of(base),
        metrics={split: {**s.as_dict(), "dtype": fitted.dtype} for split, s in scores.items() if s},
        data=splits.facts,
        floor=fitted.floor or {},
        versions={
            "raylora": __version__,
            **{name: version(name) for name in ("torch", "transformers", "peft")},
        },
        config=job.model_dump(),
    )
