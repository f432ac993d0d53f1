"""Which trials share a worker, and how many: the sweep's wishes over what `model.packing` can."""

import numpy as np

from raylora.config import Job
from raylora.model.packing import packable, slots


def alone_because(job: Job) -> str | None:
    """Why a trial runs alone on its worker; None if it can be packed with others."""
    return "tune.pack: off" if job.tune.pack == "off" else packable(job)


def pack_slots(job: Job, width: float, use_gpu: bool) -> int:
    """Trials of this kind that one worker trains at once.

    Args:
        width: tokens of a long row (the 90th percentile).
    """
    if alone_because(job):
        return 1
    return job.tune.pack if isinstance(job.tune.pack, int) else slots(job, np.array([width]), use_gpu)
