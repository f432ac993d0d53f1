"""The labels of all rows, once the driver knows them: their names, and every row's target."""

from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa

from raylora.cluster.data.facts import IN_ORDER
from raylora.cluster.data.rows import Source, Split
from raylora.cluster.data.sources import read_rows
from raylora.cluster.data.warn import form
from raylora.config import DataSection, Job
from raylora.errors import DataError, EmptyFileError
from raylora.records import Say
from raylora.tasks import Task, infer, task_of

LOOKED_AT_ROWS = 1000
LOOKED_AT_FILES = 50  # of as many as there are, from the first to the last: opening one on the web takes a while


def decide_task(job: Job, sources: list[Source], say: Say) -> Job:
    """The job with `data.problem_type` and its metric decided; by the first rows of the files of `train` where it
    leaves that open.

    Raises:
        DataError: a file cannot be read.
        ConfigError: the job wants what this problem type has not.
    """
    if job.data.problem_type is None:
        files = _some(sources)
        heads = [head for file in files if (head := _first_values(file, job.data, LOOKED_AT_ROWS // len(files)))]
        values = [value for head in heads for value in head]
        taken = infer(values, job.data.label_separator, job.data.labels)
        if taken != task_of(None).problem_type:
            of = f" of {len(heads)} files" if len(heads) > 1 else ""
            say(f"task       {taken}, by the labels of the first {len(values):,} rows{of} (data.problem_type)")
        job = job.replace({"data.problem_type": taken})
    return job.replace({"train.metric_for_best_model": job.metric})


def _some(sources: list[Source]) -> list[Source]:
    """Files of `train`: all, or some spread over them, the first and the last among them."""
    train = [source for source in sources if source.split == "train"]
    places = np.linspace(0, len(train) - 1, min(len(train), LOOKED_AT_FILES)).round().astype(int)
    return [train[i] for i in places]


def _first_values(source: Source, data: DataSection, most: int) -> list[Any]:
    """Labels as a file has them."""
    with suppress(EmptyFileError):  # `list_sources` has seen another that is not
        return [row.value for row in islice(read_rows(source, data), most)]
    return []


@dataclass(frozen=True)
class Names:
    """Every row's label as a code into `known`: a string object a row took 60 bytes and most of the time."""

    codes: np.ndarray
    known: list[str]

    @classmethod
    def of(cls, column: pa.ChunkedArray) -> "Names":
        encoded: Any = column.combine_chunks().dictionary_encode()
        known: list[str] = encoded.dictionary.to_pylist()
        any_form = next(filter(None, known), "")  # a row that cannot be used has none
        return cls(encoded.indices.to_numpy(zero_copy_only=False), [form or any_form for form in known])

    def among(self, rows: np.ndarray) -> list[str]:
        """The labels that these rows carry, each once."""
        return [self.known[code] for code in np.unique(self.codes[rows])]


@dataclass(frozen=True)
class Known:
    """What all rows carry. `targets` [N, ...]; `order` [N] int64 tells labels of equal texts apart."""

    task: Task
    labels: tuple[str, ...]
    targets: np.ndarray
    order: np.ndarray


def find_labels(
    data: DataSection, names: Names, members: dict[Split, np.ndarray], sources: list[Source], outline: pa.Table
) -> Known:
    """Raises:
    DataError: nothing can be learned of the labels, or one of validation or test is not among those of train.
    ConfigError: `data.positive_label` is not one of them.
    """
    task, train = task_of(data.problem_type), members["train"]
    labels = task.labels(names.among(train), len(train), data.column)
    _check_known(task, names, labels, members, sources, outline)
    targets = task.targets(names.known, labels)
    order = targets if targets.ndim == 1 else np.argsort(np.argsort(np.array(names.known), kind="stable"))
    return Known(task.for_labels(labels, data.positive_label), labels, targets[names.codes], order[names.codes])


def _check_known(
    task: Task,
    names: Names,
    labels: tuple[str, ...],
    members: dict[Split, np.ndarray],
    sources: list[Source],
    outline: pa.Table,
) -> None:
    strange = {code: task.unknown(form, labels) for code, form in enumerate(names.known)}
    is_strange = np.array([bool(strange[code]) for code in range(len(names.known))])[names.codes]
    for split, rows in members.items():
        unseen = rows[is_strange[rows]]
        if len(unseen):
            where = outline.select(["source", "place"]).take(unseen).sort_by(IN_ORDER)
            place = sources[where["source"][0].as_py()].place(where["place"][0].as_py())
            alike = {form(label): label for label in labels}
            found = sorted({label for code in np.unique(names.codes[unseen]) for label in strange[int(code)]})
            wrong = ", ".join(
                f"'{name}'" + (f" (train has '{alike[form(name)]}')" if form(name) in alike else "")
                for name in found[:5]
            )
            raise DataError(
                f"{split} holds labels that train never saw: {wrong} ({len(unseen)} rows, the first at {place}). "
                f"Labels of train: {', '.join(labels[:20])}. Mend the rows, or name all labels in `data.labels`."
            )
