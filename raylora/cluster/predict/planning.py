"""From what a job asks for to the plan of its table: the one that the folder holds, or a new one."""

import json
from collections.abc import Collection
from dataclasses import dataclass

from raylora.cluster.data.rows import Source
from raylora.cluster.placement import WorkerPlan
from raylora.cluster.predict import plan as plans
from raylora.cluster.predict.adapters import AdapterCopy
from raylora.cluster.predict.columns import check_free, schema_of
from raylora.cluster.predict.output import BAD_ROWS, PLAN, Output
from raylora.cluster.predict.plan import Identity, Input, PartPlan, Plan
from raylora.cluster.predict.survey import bad_rows, check_rows, digests, part_bytes_for, survey, types_in
from raylora.cluster.resolve import decide_bf16
from raylora.config import Job
from raylora.config.data import Unlabelled
from raylora.errors import ConfigError
from raylora.model.base.find import BaseFolder
from raylora.model.base.precision import needs_fp32
from raylora.records import Say
from raylora.tasks import Wish

READING = ("format", "delimiter", "quoting", "encoding", "columns", "text_column", "text_pair_column", "on_bad_row")
WRITING = ("columns", "prefix", "format", "all_scores", "threshold", "min_accuracy", "batch_size")
DTYPES = {"auto": "auto", "float32": False, "bfloat16": True}


@dataclass(frozen=True)
class Asked:
    """What a job wants, before it is looked at on a cluster."""

    job: Job
    sources: list[Source]
    adapters: list[AdapterCopy]
    data: Unlabelled
    wish: Wish


def planned(asked: Asked, output: Output, workers: WorkerPlan, base: BaseFolder, say: Say) -> Plan:
    """The plan that the folder holds, or a new one, which it holds from then on.

    Raises:
        ConfigError: the folder was begun with something else.
        DataError: a row cannot be scored, or a file not read.
    """
    before = plans.load(output.read_text(PLAN), f"{output.address}/{PLAN}") if output.has(PLAN) else None
    dtype = before.identity.settings["predict.dtype"] if before and asked.job.predict.dtype == "auto" else None
    identity = _identity(asked, dtype or _dtype(asked.job, workers, base))
    if before:
        plans.check_same(before.identity, identity, output.address)
        say(f"resuming   {len(output.done()):,} of {len(before.parts):,} parts are there")
        return before
    plan = _new_plan(asked, output, identity, say)
    output.write_text(PLAN, plan.dump())
    return plan


def _identity(asked: Asked, dtype: str) -> Identity:
    files = zip(asked.sources, digests(asked.sources, asked.data), strict=True)
    data, own = asked.data, asked.job.predict
    settings = {f"data.{key}": getattr(data, key) for key in READING}
    settings |= {f"predict.{key}": getattr(own, key) for key in WRITING} | {"predict.dtype": dtype}
    inputs = tuple(Input(source.name, source.format, digest) for source, digest in files)
    return Identity(inputs, {adapter.name: adapter.digest for adapter in asked.adapters}, settings)


def _dtype(job: Job, workers: WorkerPlan, base: BaseFolder) -> str:
    if job.predict.dtype == "bfloat16" and needs_fp32(base):
        raise ConfigError(f"`predict.dtype: bfloat16`: base model {base.id} cannot run in it. Set auto or float32.")
    wished = job.replace({"train.bf16": DTYPES[job.predict.dtype]})
    return "bfloat16" if decide_bf16(wished, workers, [base]).train.bf16 else "float32"


def _new_plan(asked: Asked, output: Output, identity: Identity, say: Say) -> Plan:
    own = asked.job.predict
    say(f"reading    {len(asked.sources):,} files: which rows can be scored")
    pieces = survey(asked.sources, asked.data, own.columns, own.part_bytes or part_bytes_for(asked.sources))
    bad = bad_rows(pieces, asked.sources)
    check_rows(pieces, bad, skip=asked.data.on_bad_row == "skip")
    types = types_in(pieces)
    if own.columns is not None:
        check_columns(own.columns, types)
        types = {name: types[name] for name in own.columns}
    schema = schema_of(types)
    fields = [name for adapter in asked.adapters for name in adapter.fields(own.all_scores)]
    check_free(schema, fields, own.prefix)
    if bad:
        output.write_text(BAD_ROWS, "".join(f"{json.dumps(row)}\n" for row in bad))
    names = plans.names_of_parts([asked.sources[piece.source].path for piece in pieces], own.format)
    parts = [
        PartPlan(name, p.source, p.part.start, p.part.end, p.part.before, p.rows, len(p.faults))
        for name, p in zip(names, pieces, strict=True)
    ]
    return Plan(identity, schema, tuple(parts))


def check_columns(wanted: Collection[str], types: Collection[str]) -> None:
    """Raises:
    ConfigError: `predict.columns` names what is not there.
    """
    missing = [name for name in wanted if name not in types]
    if missing:
        raise ConfigError(f"`predict.columns` names '{missing[0]}', which no file of the data has as a column.")
