"""`raylora inspect`: the files of a job read, checked and tokenized in this process, and what they hold."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from raylora.cluster.data.dataset import assemble
from raylora.cluster.data.guess import read_columns
from raylora.cluster.data.labels import decide_task
from raylora.cluster.data.prepare import read_here
from raylora.cluster.data.report import DataReport, report_of, split_lines, warning_lines
from raylora.cluster.data.rows import Source
from raylora.cluster.data.wanted import check_wanted
from raylora.config import Job, TrainSection, TuneSection
from raylora.errors import ConfigError, DataError
from raylora.model.base.find import resolve
from raylora.model.base.load import load_tokenizer
from raylora.model.tokens import TokenizerSpec, spec_for


@dataclass(frozen=True)
class Inspection:
    """`columns` are those of the first file, or none where its head is broken or it is on the hub; `refused` says why a
    run of this job would end on this data, its bad rows aside."""

    job: Job
    columns: tuple[str, ...]
    report: DataReport
    refused: str | None

    @property
    def used(self) -> dict[str, str]:
        """The column of each part of a row."""
        data = self.job.data
        pair = {"text_pair": data.text_pair_column} if data.text_pair_column else {}
        return {"text": data.text_column, **pair, "label": data.label_column}

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "problem_type": self.job.data.problem_type,
            "used": self.used,
            "columns": self.columns,
            **self.report.as_dict(),
            "refused": self.refused,
        }

    def lines(self) -> list[str]:
        """For people."""
        unused = [name for name in self.columns if name not in self.used.values()]
        used = ", ".join(f"{part} '{name}'" for part, name in self.used.items())
        columns = f"{'columns':<11}{used}{'; not used: ' if unused else ''}{', '.join(unused)}"
        splits = [split_lines(split, facts, self.report.limit) for split, facts in self.report.splits.items()]
        task = f"{'task':<11}{self.job.data.problem_type}"
        return [task, columns, *(line for lines in splits for line in lines), *warning_lines(self.report)]


def inspect(job: Job, sources: Sequence[Source]) -> Inspection:
    """Args:
    sources: the job's files, from `list_sources`.

    Raises:
        DataError: a file cannot be read.
        ModelError: there is no base model to count tokens for.
    """
    job, unfit = _decided(job, list(sources))
    tokenizer = spec_for(load_tokenizer(resolve(job.model).path), job.data)
    outline = read_here(job, list(sources), tokenizer)
    report = report_of(job.data, sources, outline, tokenizer)
    refused = unfit or _refusal(job, list(sources), tokenizer, outline)
    return Inspection(job, _columns(sources[0], job), report, refused)


def _decided(job: Job, sources: list[Source]) -> tuple[Job, str | None]:
    """The job of the labels' task, and why it cannot be as it stands: that is then told beside what the data holds."""
    try:
        return decide_task(job, sources, say=lambda line: None), None
    except ConfigError as error:
        without = job.model_copy(update={"train": TrainSection(), "tune": TuneSection()})
        return decide_task(without, sources, say=lambda line: None), str(error)


def _columns(source: Source, job: Job) -> tuple[str, ...]:
    if source.path.startswith("hf://"):
        return ()
    with suppress(DataError):  # a row that is no JSON, which the report tells of
        return tuple(read_columns(source.path, job.data))
    return ()


def _refusal(job: Job, sources: list[Source], tokenizer: TokenizerSpec, outline: pa.Table) -> str | None:
    skipping = job.replace({"data.on_bad_row": "skip"})
    try:
        dataset = assemble(skipping.data, job.split_seed, sources, tokenizer, [], outline)
        check_wanted([job], dataset)
    except (ConfigError, DataError) as error:
        return str(error)
    return None
