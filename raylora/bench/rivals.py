"""What one would write without raylora, run alone in a process: `python -m raylora.bench.rivals NAME JOB OPTIONS`.

Prints one JSON line: rows per second of the training loop, real tokens per second, test accuracy, peak memory.
"""

import json
import resource
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from raylora.config import Job, parse
from raylora.model.adapter import lora_config
from raylora.model.base import load_tokenizer, resolve

Rival = Literal["tutorial", "padded", "grouped", "fit", "ray"]


@dataclass(frozen=True)
class Measured:
    """One run. `accuracy` is on the test split, of the best epoch by validation; null where only speed was asked."""

    rival: str
    rows_per_s: float
    tokens_per_s: float
    train_s: float
    accuracy: float | None
    peak_bytes: int


def measure(rival: Rival, job: Job, scored: bool) -> Measured:
    """Train once and time the loop; `scored` also evaluates each epoch and tests the best."""
    if rival == "ray":
        return _ray(job)
    if rival == "fit":
        return _fit(job)
    return _trainer(rival, job, scored)


def _rows(job: Job, side: str) -> tuple[list[str], list[str]]:
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(getattr(job.data, side))
    return table[job.data.text_column].to_pylist(), table[job.data.label_column].to_pylist()


def _trainer(rival: Rival, job: Job, scored: bool) -> Measured:
    """HF's `Trainer` as in the tutorial; `padded` and `grouped` pad to the batch, `grouped` also batches by length."""
    import datasets
    import torch
    from peft import get_peft_model
    from sklearn.metrics import accuracy_score
    from transformers import AutoModelForSequenceClassification, DataCollatorWithPadding, Trainer, TrainingArguments

    base = resolve(job.model)
    tokenizer: Any = load_tokenizer(base.path)
    labels = sorted(set(_rows(job, "train")[1]))
    whole = rival == "tutorial"

    def split(side: str) -> Any:
        texts, names = _rows(job, side)
        data = datasets.Dataset.from_dict({"text": texts, "label": [labels.index(name) for name in names]})
        padding = {"padding": "max_length"} if whole else {}
        options = {"truncation": True, "max_length": job.data.max_length, **padding}
        return data.map(lambda rows: tokenizer(rows["text"], **options), batched=True, remove_columns=["text"])

    torch.manual_seed(job.seed)
    model = AutoModelForSequenceClassification.from_pretrained(base.path, num_labels=len(labels), dtype=torch.float32)
    model = get_peft_model(model, lora_config(job.lora, model))
    train = split("train")
    each = "epoch" if scored else "no"
    with tempfile.TemporaryDirectory() as scratch:
        trainer = Trainer(
            model=model,
            args=TrainingArguments(
                output_dir=scratch,
                num_train_epochs=job.train.num_train_epochs,
                learning_rate=job.train.learning_rate,
                per_device_train_batch_size=job.train.per_device_train_batch_size,
                train_sampling_strategy="group_by_length" if rival == "grouped" else "random",
                eval_strategy=each,
                save_strategy=each,
                load_best_model_at_end=scored,
                metric_for_best_model="accuracy" if scored else None,
                logging_strategy="no",
                report_to=[],
                disable_tqdm=True,
                use_cpu=True,
                seed=job.seed,
            ),
            train_dataset=train,
            eval_dataset=split("validation") if scored else None,
            data_collator=None if whole else DataCollatorWithPadding(tokenizer),
            processing_class=tokenizer,
            compute_metrics=lambda p: {"accuracy": accuracy_score(p.label_ids, np.argmax(p.predictions, axis=-1))},
        )
        start = time.perf_counter()
        trainer.train()
        train_s = time.perf_counter() - start
        accuracy = _accuracy(trainer.predict(split("test"))) if scored else None
    rows = len(train) * job.train.num_train_epochs
    tokens = sum(sum(mask) for mask in train["attention_mask"]) * job.train.num_train_epochs
    return Measured(rival, rows / train_s, tokens / train_s, train_s, accuracy, _peak())


def _accuracy(predicted: Any) -> float:
    return float((predicted.predictions.argmax(axis=-1) == predicted.label_ids).mean())


def _fit(job: Job) -> Measured:
    """raylora's own loop in this process, without Ray."""
    from raylora.cluster.data.split import canonical_order, text_hash
    from raylora.model.fit import Splits, fit
    from raylora.model.tokens import TokenTable, encode, table_of, tokenizer_spec

    base = resolve(job.model)
    spec = tokenizer_spec(load_tokenizer(base.path), job.data.max_length)
    labels = sorted(set(_rows(job, "train")[1]))

    def table(side: str) -> TokenTable:
        texts, names = _rows(job, side)
        tokens = table_of(encode(texts, spec))
        ids = np.array([labels.index(name) for name in names])
        order = canonical_order(np.array([text_hash(t, None, job.seed) for t in texts], dtype=np.uint64), ids)
        return TokenTable(tokens.chunks, order, ids[order], tokens.lengths[order])

    splits = Splits(table("train"), table("validation"), table("test"), tuple(labels), spec, {})
    fitted = fit(job, base, splits)
    assert fitted.test is not None, "the bench gives a test split"
    rate = fitted.rows / fitted.train_s
    return Measured("fit", rate, fitted.tokens / fitted.train_s, fitted.train_s, fitted.test.accuracy, _peak())


def _ray(job: Job) -> Measured:
    """The whole train job on a Ray of its own with one worker; the loop's time is the worker's."""
    from raylora.cluster.data.files import list_sources
    from raylora.cluster.train import train

    with tempfile.TemporaryDirectory() as storage:
        job = job.replace({"storage_path": storage, "run_name": "bench", "ray.num_workers": 1})
        metrics = train(job, list_sources(job.data), say=lambda line: None).metrics
    accuracy = metrics["test"]["accuracy"]
    return Measured("ray", metrics["rows_per_s"], metrics["tokens_per_s"], metrics["train_s"], accuracy, 0)


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    name, tree, scored = sys.argv[1], json.loads(Path(sys.argv[2]).read_text()), sys.argv[3] == "scored"
    sys.stdout.write("\n" + json.dumps(asdict(measure(name, parse(tree), scored))) + "\n")  # pyright: ignore
