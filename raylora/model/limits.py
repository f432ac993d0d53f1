"""What a trial's adapter would weigh and its base would cost, before it is trained."""

import statistics
import time
from typing import Any

from raylora.config import Job
from raylora.errors import TrainingError
from raylora.model.base.find import BaseFolder
from raylora.model.base.load import empty_base, read_config
from raylora.model.lora.attach import attach_adapter, lora_config
from raylora.model.resolved import ResolvedJob

BYTES_IN_CHECKPOINT = 16  # of each trained parameter: itself, the best epoch's, and two moments of AdamW


def trainable_parameters(resolved: ResolvedJob, labels: tuple[str, ...], new_modules: tuple[str, ...] = ()) -> int:
    """Of the adapter with its head; counted without loading a weight. `new_modules` as `load_base` found them."""
    model = empty_base(resolved.base, read_config(resolved.base, labels, dropout=True))
    return attach_adapter(model, lora_config(resolved.job.lora, model, new_modules)).get_nb_trainable_parameters()[0]


def bytes_written(job: Job, base: BaseFolder) -> int:
    """About what a run leaves on disk at its most: three checkpoints, an adapter, and 16 MiB for all else."""
    resolved = ResolvedJob(job.replace({"train.bf16": False}), base)
    return trainable_parameters(resolved, ("a", "b")) * (3 * BYTES_IN_CHECKPOINT + 4) + 2**24


def latency_ms(model: Any, length: int, max_length: int, repeats: int = 15) -> float:
    """Median time of one row of `length` tokens, in windows of at most `max_length`, in milliseconds, in this process.

    A merged adapter costs nothing at prediction, so this is the base's own time.
    """
    import torch

    windows = -(-length // max_length)
    ids = torch.ones((windows, -(-length // windows)), dtype=torch.long, device=next(model.parameters()).device)
    times: list[float] = []
    with torch.inference_mode():
        for _ in range(repeats):
            start = time.perf_counter()
            model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.cpu()
            times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times[repeats // 3 :])


def is_out_of_memory(error: Exception) -> bool:
    """Of the device or of the machine. torch has a type of its own for the device's allocator alone."""
    import torch

    said = ("out of memory", "can't allocate memory", "ALLOC_FAILED")
    is_said = isinstance(error, RuntimeError) and any(words in str(error) for words in said)
    return is_said or isinstance(error, torch.OutOfMemoryError | MemoryError)


def check_limits(job: Job, parameters: int, latency: float) -> None:
    """Refuse a trial before it is trained.

    Args:
        latency: of its base, in milliseconds.

    Raises:
        TrainingError: it is larger or slower than `tune.max_trainable_parameters` and `tune.max_latency_ms` allow.
    """
    most, slowest = job.tune.max_trainable_parameters, job.tune.max_latency_ms
    if most and parameters > most:
        raise TrainingError(f"not run: {parameters:,} trainable parameters; tune.max_trainable_parameters is {most:,}")
    if slowest and latency > slowest:
        raise TrainingError(f"not run: {latency:.1f} ms for a row; tune.max_latency_ms is {slowest:g}")
