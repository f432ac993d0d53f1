"""The labelled rows that adapters are evaluated on: those that a run held out, or others."""

import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from raylora.cluster.data import frames, web
from raylora.cluster.data.exclude import read_excluded
from raylora.cluster.data.labels import Names
from raylora.cluster.data.rows import Row, Source, Split, bad_rows_message
from raylora.cluster.data.sources import read_rows, sources_of
from raylora.cluster.data.split import divide_train, fingerprint, text_hash
from raylora.cluster.evaluate.subjects import Subject
from raylora.cluster.storage.filesystem import locate
from raylora.config import DataSection, Job
from raylora.demo import REVIEWS
from raylora.errors import ConfigError, DataError, EmptyFileError
from raylora.evaluation.traits import Text
from raylora.records import Say
from raylora.tasks import Task

Sources = Callable[[DataSection], list[Source]]
OTHER_ROWS = "Pass --data (`data=` in Python)."


@dataclass(frozen=True)
class LabelledRows:
    """`columns` by name, a value of each row; `facts` are `Evaluation.data`."""

    texts: list[Text]
    targets: np.ndarray
    places: list[str]
    columns: dict[str, list[Any]]
    facts: dict[str, Any]


@dataclass(frozen=True)
class _Read:
    """A row of the file of this number."""

    number: int
    source: Source
    row: Row

    @property
    def text(self) -> Text:
        return self.row.text if self.row.text_pair is None else (self.row.text, self.row.text_pair)


def labelled_rows(
    subject: Subject, job: Job, task: Task, data: Any, slice_by: Sequence[str], say: Say = lambda line: None
) -> LabelledRows:
    """Args:
        job: of `subjects.job_of`; its split is taken where `data` is None.
        data: addresses as `data.test` takes them, or rows as `raylora.train` takes them.
        slice_by: columns of the files.

    Raises:
        DataError: rows cannot be read or used, there is none, a column is missing, or the run held out others.
        ConfigError: the run held out no rows.
    """
    with tempfile.TemporaryDirectory(prefix="raylora-evaluate-") as folder:
        if data is None:
            _check_held_out(subject, job)
            section, split = job.data, _own_split(job.data)
            sources = _at_addresses(_addresses(section, split), "train" if _is_of_train(section) else split, say)
        else:
            section, split = job.data, "data"
            sources = _at_addresses(data, "test", say) if is_address(data) else _in_frames(data, folder)
        return _labelled(subject, section, job.split_seed, split, task, sources, slice_by)


def _labelled(
    subject: Subject,
    section: DataSection,
    seed: int,
    split: str,
    task: Task,
    sources: Sources,
    slice_by: Sequence[str],
) -> LabelledRows:
    labels, files = subject.manifest.labels, sources(section)
    read, bad = _usable(files, section)
    if split == "validation":
        read = _without_excluded(read, section, seed)
    known, unknown = _known(read, task, labels)
    if split != "data":
        _check_all_known(unknown, subject, split)
    if not read:
        raise DataError(f"{', '.join(file.path for file in files[:3])} holds no row to evaluate on. {OTHER_ROWS}")
    if not known:
        raise DataError(
            f"none of the {len(read):,} rows carries a label that {subject.name} knows ({', '.join(labels[:20])})."
        )
    targets = task.targets([each.row.label for each in known], labels)
    if split != "data":
        chosen = _held_out(subject, known, targets, section, seed, task)
        known, targets = [known[i] for i in chosen], targets[chosen]
    facts = {"split": split, "addresses": sorted({each.source.path for each in known}), "bad_rows": bad}
    return LabelledRows(
        [each.text for each in known],
        targets,
        [each.source.place(each.row.place) for each in known],
        {name: _column(known, sources, section, name) for name in dict.fromkeys(slice_by)},
        {**facts, "unknown_labels": unknown},
    )


# --- which rows


def _own_split(data: DataSection) -> Split:
    return "test" if data.test is not None else "validation"


def _is_of_train(data: DataSection) -> bool:
    """Whether the rows that were held out are some of `data.train`."""
    return data.test is None and data.validation is None


def _addresses(data: DataSection, split: Split) -> str | list[str]:
    return getattr(data, split) or data.train or str(REVIEWS)


def _check_held_out(subject: Subject, job: Job) -> None:
    if subject.job is None:
        raise ConfigError(f"{subject.name} does not say which rows its run held out. {OTHER_ROWS}")
    seen = _own_split(job.data) == "validation" and job.tune.refit and "validation" not in subject.manifest.metrics
    if seen:
        raise ConfigError(
            f"{subject.name} was trained on its validation rows, too (tune.refit), and its sweep had no `data.test`. "
            f"{OTHER_ROWS}"
        )


def _held_out(
    subject: Subject, read: Sequence[_Read], targets: np.ndarray, data: DataSection, seed: int, task: Task
) -> np.ndarray:
    """Places of the rows that the run held out, in the files' order.

    Raises:
        DataError: the rows are not those that the run had.
    """
    facts, labels = subject.manifest.data, subject.manifest.labels
    if not _is_of_train(data):
        split = _own_split(data)
        if facts and facts["rows"].get(split) != task.counts(targets, labels):
            raise _changed(subject, split)
        return np.arange(len(read))
    hashes = _hashes(read, seed)
    order = targets if targets.ndim == 1 else _ranks([each.row.label for each in read])
    parts = divide_train(data, hashes, order, task.strata(targets), task.on_both_sides(labels))
    splits = [(hashes[rows], targets[rows]) for rows in (parts.train, parts.validation)]
    if facts and facts["fingerprint"] != fingerprint(splits):
        raise _changed(subject, "train")
    return np.sort(parts.validation)


def _hashes(read: Sequence[_Read], seed: int) -> np.ndarray:
    """[N] by which a run splits its rows."""
    return np.array([text_hash(each.row.text, each.row.text_pair, seed) for each in read], dtype=np.uint64)


def _without_excluded(read: list[_Read], data: DataSection, seed: int) -> list[_Read]:
    """The rows that `data.exclude` leaves to train and validation."""
    excluded = read_excluded(data, seed)
    if not excluded or not read:
        return read
    names = Names.of(pa.chunked_array([[each.row.label for each in read]], pa.string()))
    left_out = excluded.among(_hashes(read, seed), names, data)
    return [each for each, out in zip(read, left_out.tolist(), strict=True) if not out]


def _ranks(forms: Sequence[str]) -> np.ndarray:
    """[N] that tell different labels of equal texts apart."""
    return np.unique(np.array(forms), return_inverse=True)[1]


def _changed(subject: Subject, split: str) -> DataError:
    return DataError(
        f"`data.{split}` of {subject.name} does not hold the rows that its run had, so that nobody can tell which it "
        f"held out. Bring them back, or choose rows that it has not learned from. {OTHER_ROWS}"
    )


def _check_all_known(unknown: Mapping[str, int], subject: Subject, split: str) -> None:
    if unknown:
        raise DataError(
            f"`data.{split}` of {subject.name} holds labels that it never saw: {', '.join(list(unknown)[:10])}. Its "
            f"rows changed since the run. {OTHER_ROWS}"
        )


# --- reading


def is_address(data: Any) -> bool:
    """Whether this is a path or several, not rows."""
    if isinstance(data, list | tuple):
        return bool(data) and all(isinstance(each, str | os.PathLike) for each in data)
    return isinstance(data, str | os.PathLike)


def _at_addresses(data: Any, split: Split, say: Say) -> Sources:
    where = [os.fspath(each) for each in data] if isinstance(data, list | tuple) else os.fspath(data)
    web.fetch(where, say)
    return lambda section: sources_of(where, split, section)


def _in_frames(data: Any, folder: str) -> Sources:
    """Rows of a program as a file, of those columns that are wanted."""
    rows = list(data) if isinstance(data, Iterator) else data
    return lambda section: sources_of(frames.save(rows, locate(folder), "test", section), "test", section)


def _usable(sources: Sequence[Source], data: DataSection) -> tuple[list[_Read], list[dict[str, str]]]:
    """The rows, and the bad ones among them with their reasons.

    Raises:
        DataError: some are bad, and are not to be left out.
    """
    read = [_Read(i, source, row) for i, source in enumerate(sources) for row in _rows_of(source, data)]
    bad = [{"place": each.source.place(each.row.place), "reason": each.row.fault} for each in read if each.row.fault]
    if bad and (data.on_bad_row == "error" or len(bad) == len(read)):
        raise DataError(bad_rows_message(bad, len(read), "evaluation.json"))
    return [each for each in read if not each.row.fault], bad


def _known(read: Sequence[_Read], task: Task, labels: tuple[str, ...]) -> tuple[list[_Read], dict[str, int]]:
    """The rows all of whose labels are known, and how many others carry each label that is not."""
    forms = {each.row.label for each in read}
    strange = {form: found for form in forms if (found := task.unknown(form, labels))}
    unknown = Counter(label for each in read for label in strange.get(each.row.label, ()))
    return [each for each in read if each.row.label not in strange], dict(unknown.most_common())


def _column(known: Sequence[_Read], sources: Sources, data: DataSection, name: str) -> list[Any]:
    """A column of the files, read as their label.

    Raises:
        DataError: they have no such column.
    """
    section = DataSection.model_validate(
        {
            **data.model_dump(),
            "label_column": name,
            "labels": None,
            "label_separator": None,
            "problem_type": None,
        }
    )
    found = sources(section)
    if any(source.format == "text" for source in found):
        raise DataError(f"{found[0].path} is a folder of texts, which has no columns to slice by ('{name}').")
    values = {(i, row.place): row.value for i, source in enumerate(found) for row in _rows_of(source, section)}
    column = [values.get((each.number, each.row.place)) for each in known]
    if all(value is None for value in column):
        raise DataError(f"no row of {found[0].path} holds a value of '{name}'. Is the column's name right?")
    return column


def _rows_of(source: Source, data: DataSection) -> Iterator[Row]:
    with suppress(EmptyFileError):
        yield from read_rows(source, data)
