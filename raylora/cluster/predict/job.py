"""A scoring job: all rows are read once and planned, then Ray Data's pool scores the parts that are not there yet."""

import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

from raylora.cluster.data.rows import Source
from raylora.cluster.placement import WorkerPlan, need_of, tell_wait
from raylora.cluster.predict.adapters import base_for, check_wishes, take, texts_of
from raylora.cluster.predict.output import BAD_ROWS, Output
from raylora.cluster.predict.plan import Plan
from raylora.cluster.predict.planning import Asked, planned
from raylora.cluster.predict.pool import pool_of, run_parts
from raylora.cluster.predict.progress import Teller
from raylora.cluster.predict.scorer import Work
from raylora.cluster.preflight import preflight
from raylora.cluster.session import connect, look
from raylora.cluster.storage.lock import Held, hold
from raylora.config import Job
from raylora.errors import RayLoraError
from raylora.records import Say


@dataclass(frozen=True)
class Scored:
    """A table that is scored. `counts` are rows by label, of each adapter; "" counts those without one.

    `seconds` are those of scoring, of this start alone, and so are `rows_per_s`.
    """

    output_uri: str
    rows: int
    bad: int
    parts: int
    counts: dict[str, dict[str, int]]
    seconds: float
    rows_per_s: float

    @property
    def bad_rows_uri(self) -> str:
        return Output(self.output_uri).location.inside(BAD_ROWS).address


def score(job: Job, sources: list[Source], say: Say) -> Scored:
    """Score a table, or what is missing of one.

    Args:
        sources: of `inputs.list_texts`.
        say: takes each line of progress.

    Raises:
        RayLoraError: the job cannot be; what is scored already is kept.
    """
    output = Output(str(job.predict.output))
    output.check_ours()
    adapters = take(job)
    asked = Asked(job, sources, adapters, texts_of(adapters, job), check_wishes(adapters, job))
    with hold(output, say) as held:
        try:
            return _score(asked, output, held, say)
        except Exception as error:  # noqa: BLE001 - Ray wraps what a task raised, once per layer
            raise own_error(error) or error from None


def own_error(error: BaseException | None) -> RayLoraError | None:
    """The user's mistake behind what Ray raised, if it is one."""
    while error is not None:
        cause = getattr(error, "cause", None)
        if isinstance(error, RayLoraError) and cause is None:
            return error
        error = cause or error.__cause__
    return None


def _score(asked: Asked, output: Output, held: Held, say: Say) -> Scored:
    job = asked.job
    model, base = base_for(asked.adapters, job)
    say(f"output     {output.address}")
    say(f"base       {base.id} ({base.origin})")
    with connect(job.ray) as cluster:
        workers = pool_of(job, cluster)
        cluster = look(cluster)
        say(f"ray        {cluster}")
        tell_wait(need_of(workers), cluster, say)
        preflight(output, asked.sources, cluster)
        plan = planned(asked, output, workers, base, say)
        done = output.done()
        missing = [i for i, part in enumerate(plan.parts) if part.name not in done]
        seconds, rows = 0.0, sum(plan.parts[i].rows for i in missing)
        if missing:
            work = _work(asked, output, plan, workers, model)
            start = time.monotonic()
            free = cluster.free_slots(workers.resources_per_worker)
            teller = Teller(plan.rows, plan.rows - rows, say)
            run_parts(work, missing, workers, free, teller)
            seconds = time.monotonic() - start
    held.check()
    return _conclude(asked, output, plan, seconds, rows)


def _work(asked: Asked, output: Output, plan: Plan, workers: WorkerPlan, model: Any) -> Work:
    own = asked.job.predict
    return Work(
        output=output.address,
        sources=asked.sources,
        parts=plan.parts,
        data=asked.data,
        schema=plan.schema,
        adapters=asked.adapters,
        model=model,
        wish=asked.wish,
        format=own.format,
        all_scores=own.all_scores,
        batch_size=own.batch_size,
        dtype=plan.identity.settings["predict.dtype"],
        use_gpu=workers.use_gpu,
        threads=max(int(workers.resources_per_worker.get("CPU", 1)), 1),
    )


def _conclude(asked: Asked, output: Output, plan: Plan, seconds: float, rows: int) -> Scored:
    finished = output.summary()
    if finished and not rows:
        return Scored(output.address, **finished)
    counts: dict[str, Counter[str]] = {adapter.name: Counter() for adapter in asked.adapters}
    for mark in output.marks([part.name for part in plan.parts]):
        for name, found in mark["counts"].items():
            counts[name].update(found)
    summary: dict[str, Any] = {
        "rows": plan.rows - plan.bad,
        "bad": plan.bad,
        "parts": len(plan.parts),
        "counts": {name: dict(found.most_common()) for name, found in counts.items()},
        "seconds": round(seconds, 3),
        "rows_per_s": round(rows / seconds, 1) if seconds else 0.0,
    }
    output.finish(summary)
    return Scored(output.address, **summary)
