"""HF's `Trainer` with PEFT, as one would write it without raylora."""

from collections.abc import Sequence
from typing import Any, Literal

import datasets
import torch
from peft import PeftModel, get_peft_model
from sklearn.metrics import accuracy_score
from transformers import (
    AutoModelForSequenceClassification,
    DataCollatorWithPadding,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from raylora.bench.rows import read_labels, read_rows
from raylora.config import Job
from raylora.model.base.find import resolve
from raylora.model.base.load import load_tokenizer
from raylora.model.lora.attach import lora_config

# `tutorial` pads every row to max_length; `padded` pads to the batch's longest; `grouped` also batches by length
Loop = Literal["tutorial", "padded", "grouped"]


def make_trainer(
    job: Job, loop: Loop, scratch: str, scored: bool, callbacks: Sequence[TrainerCallback] = ()
) -> Trainer:
    """Reads and tokenizes the rows itself. `train.bf16: true` is autocast.

    Args:
        scored: evaluate, save, and end with the best epoch.
    """
    base = resolve(job.model)
    torch.manual_seed(job.seed)
    tokenizer: Any = load_tokenizer(base.path)
    return Trainer(
        model=_model(job, base.path),
        args=_arguments(job, loop, scratch, scored),
        train_dataset=tokenize(job, loop, tokenizer, "train"),
        eval_dataset=tokenize(job, loop, tokenizer, "validation") if scored else None,
        data_collator=None if loop == "tutorial" else DataCollatorWithPadding(tokenizer),
        processing_class=tokenizer,
        compute_metrics=_accuracy,
        callbacks=list(callbacks),
    )


def tokenize(job: Job, loop: Loop, tokenizer: Any, split: str) -> Any:
    """A split by `datasets.map`."""
    labels = read_labels(job)
    texts, names = read_rows(job, split)
    data = datasets.Dataset.from_dict({"text": texts, "label": [labels.index(name) for name in names]})
    padding = {"padding": "max_length"} if loop == "tutorial" else {}
    options = {"truncation": True, "max_length": job.data.max_length, **padding}
    return data.map(lambda rows: tokenizer(rows["text"], **options), batched=True, remove_columns=["text"])


def _accuracy(predicted: Any) -> dict[str, float]:
    return {"accuracy": accuracy_score(predicted.label_ids, predicted.predictions.argmax(axis=-1))}


def _model(job: Job, path: str) -> PeftModel:
    kind, labels = AutoModelForSequenceClassification, read_labels(job)
    model = kind.from_pretrained(path, num_labels=len(labels), dtype=torch.float32)
    return get_peft_model(model, lora_config(job.lora, model))  # pyright: ignore[reportReturnType]


def _arguments(job: Job, loop: Loop, scratch: str, scored: bool) -> TrainingArguments:
    each = "epoch" if scored else "no"
    return TrainingArguments(
        output_dir=scratch,
        num_train_epochs=job.train.num_train_epochs,
        learning_rate=job.train.learning_rate,
        per_device_train_batch_size=job.train.per_device_train_batch_size,
        per_device_eval_batch_size=job.train.per_device_eval_batch_size,
        bf16=job.train.bf16 is True,
        train_sampling_strategy="group_by_length" if loop == "grouped" else "random",
        eval_strategy=each,
        save_strategy=each,
        save_total_limit=1,
        load_best_model_at_end=scored,
        metric_for_best_model="accuracy" if scored else None,
        logging_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        seed=job.seed,
    )
