"""Training, packs and serving on a GPU, in this process: what holds on CPUs holds there, within its rounding."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny import apart, demo_splits, make_adapter, tiny_job

from raylora.config import Job, ModelSection
from raylora.model.bank import Bank
from raylora.model.collator import Collator
from raylora.model.fit.callback import Event
from raylora.model.fit.fit import FitResult, fit
from raylora.model.fit.splits import Splits, Worker
from raylora.model.lora.save import trainable_state
from raylora.model.resolved import resolve_job
from raylora.model.serving.base import ServedBase
from raylora.model.tokens import TokenTable, encode

Bases = Callable[[str], Path]
Weights = dict[str, torch.Tensor]

KINDS = ["bert", "distilbert", "modernbert", "deberta-v2", "llama"]
ROWS = 125


def job_of(base: Path, **changes: Any) -> Job:
    """SGD: Adam divides by the size of a gradient, and makes steps of the noise where it should be zero."""
    settings = {"lora__target_modules": "all-linear", "train__optim": "sgd", "train__learning_rate": 0.1}
    return tiny_job(base, **settings | changes)


def run(job: Job, splits: Splits, gpu: bool, **options: Any) -> FitResult:
    return fit(resolve_job(job, use_gpu=gpu), splits, worker=Worker(use_gpu=gpu), **options)


def weights(fitted: FitResult) -> Weights:
    return trainable_state(fitted.model)


@pytest.mark.parametrize("kind", KINDS)
def test_a_gpu_reaches_the_adapter_of_a_cpu(bases: Bases, gpu: bool, kind: str) -> None:
    """In fp32 with nothing dropped: masks are drawn otherwise."""
    job = job_of(bases(kind))
    splits = demo_splits(job, bases(kind), ROWS)
    there, here = run(job, splits, gpu), run(job, splits, gpu=False)
    assert apart(weights(there), weights(here)) < 1e-2
    assert there.validation.loss == pytest.approx(here.validation.loss, abs=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_accumulated_micro_batches_drop_what_a_whole_batch_drops(bases: Bases, gpu: bool, kind: str) -> None:
    job = job_of(bases(kind), lora__lora_dropout=0.2, train__per_device_train_batch_size=8)
    splits = demo_splits(job, bases(kind), ROWS)
    cut = {"train.per_device_train_batch_size": 2, "train.gradient_accumulation_steps": 4}
    whole, parts = (run(each, splits, gpu) for each in (job, job.replace(cut)))
    assert apart(weights(parts), weights(whole)) < 1e-2


@pytest.mark.parametrize("kind", KINDS)
def test_packed_trials_end_where_each_would_alone(bases: Bases, gpu: bool, kind: str, tmp_path: Path) -> None:
    changes: list[dict[str, Any]] = [{"lora__lora_dropout": 0.1}, {"lora__r": 2, "train__learning_rate": 0.2}]
    jobs = {str(i): job_of(bases(kind), train__num_train_epochs=2, **each) for i, each in enumerate(changes)}
    splits = demo_splits(jobs["0"], bases(kind), ROWS)
    bank = Bank(resolve_job(jobs["0"], use_gpu=gpu), splits, Worker(use_gpu=gpu))
    for name, job in jobs.items():
        bank.admit(name, job)
    for _ in range(2):
        bank.run_epoch()
    for name, job in jobs.items():
        bank.save(name, tmp_path / name)
        assert apart(load_file(tmp_path / name / "best.safetensors"), weights(run(job, splits, gpu))) < 1e-2


def test_a_fit_resumed_within_an_epoch_ends_where_an_uninterrupted_one_does(
    bases: Bases, gpu: bool, tmp_path: Path
) -> None:
    job = job_of(bases("bert"), lora__lora_dropout=0.1, train__num_train_epochs=2, train__save_steps=8)
    splits = demo_splits(job, bases("bert"), ROWS)

    def stop(metrics: Event, folder: Path | None) -> None:
        if folder and metrics["step"] == 16:
            shutil.copytree(folder, tmp_path / "cut")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(job, splits, gpu, report=stop)
    resumed = run(job, splits, gpu, resume_from=tmp_path / "cut")
    assert apart(weights(resumed), weights(run(job, splits, gpu))) < 1e-3


def test_states_below_the_trained_layers_are_computed_once_there_too(bases: Bases, gpu: bool) -> None:
    job = job_of(bases("bert"), lora__layers_to_transform=[1], lora__target_modules=["query", "value"])
    splits = demo_splits(job, bases("bert"), ROWS)
    kept, none = run(job, splits, gpu), run(job.replace({"train.frozen_states_cache_bytes": 0}), splits, gpu)
    assert apart(weights(kept), weights(none)) < 1e-2


@pytest.mark.only_gpu
def test_precision_is_bf16_where_the_gpu_has_it(bases: Bases) -> None:
    job = job_of(bases("bert"), train__bf16="auto")
    fitted = run(job, demo_splits(job, bases("bert"), ROWS), gpu=True)
    assert fitted.dtype == ("bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32")
    assert np.isfinite(fitted.validation.loss)


@pytest.mark.only_gpu
def test_a_pack_that_does_not_fit_says_so_and_leaves_the_memory_free(bases: Bases) -> None:
    from raylora.model.limits import is_out_of_memory

    job = job_of(bases("bert"), train__per_device_train_batch_size=64)
    splits = demo_splits(job, bases("bert"), ROWS)
    bank = Bank(resolve_job(job, use_gpu=True), splits, Worker(use_gpu=True))
    for i in range(8):
        bank.admit(str(i), job)
    held = torch.cuda.memory_allocated()
    torch.cuda.set_per_process_memory_fraction((held + 2**20) / torch.cuda.get_device_properties(0).total_memory)
    try:
        torch.cuda.empty_cache()
        with pytest.raises(RuntimeError) as raised:
            bank.run_epoch()
        assert is_out_of_memory(raised.value)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_mixed_batch_answers_as_on_a_cpu(bases: Bases, gpu: bool, dtype: torch.dtype, tmp_path: Path) -> None:
    base = bases("bert")
    folders = [make_adapter(base, tmp_path / str(i), ("a", "b", "c")[: 2 + i % 2], seed=i) for i in range(4)]
    texts = ["Works well.", "It broke after a week and nobody answers.", "Fine", "Not what I ordered."]

    def logits(device: str, precision: torch.dtype) -> list[np.ndarray]:
        served = ServedBase(ModelSection(base_model=str(base)), precision, torch.device(device))
        found: list[np.ndarray] = []
        for folder, text in zip(folders, texts, strict=True):
            adapter = served.load(folder)
            encoded = encode([text], adapter.spec)
            lengths = encoded["input_ids"].combine_chunks().value_lengths().to_numpy().astype(np.int32)
            table = TokenTable([encoded], np.arange(1), np.zeros(1, dtype=np.int64), lengths)
            found += list(served.logits(Collator(table, adapter.spec)(np.arange(1)), [adapter]))
        return found

    within = 1e-3 if dtype == torch.float32 else 0.3
    pairs = zip(logits("cuda" if gpu else "cpu", dtype), logits("cpu", torch.float32), strict=True)
    assert all(np.abs(there - here).max() < within for there, here in pairs)
