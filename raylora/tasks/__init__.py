"""The tasks of sequence classification: single label, multi-label, regression. Loads nothing heavy."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from raylora.tasks.answers import AS_IT_IS, LabelScore, Learned, Prediction, ProblemType, Wish
from raylora.tasks.functions import Function
from raylora.tasks.multi_label import MultiLabel
from raylora.tasks.parsed import LabelColumn, Parsed, as_number, plain
from raylora.tasks.regression import Regression
from raylora.tasks.single_label import SingleLabel
from raylora.tasks.task import Pooling, Task, Units

__all__ = [
    "AS_IT_IS",
    "TASKS",
    "Function",
    "LabelColumn",
    "LabelScore",
    "Learned",
    "Parsed",
    "Pooling",
    "Prediction",
    "ProblemType",
    "Task",
    "Units",
    "Wish",
    "infer",
    "scores_in_words",
    "shown_metrics",
    "task_of",
]

TASKS: dict[ProblemType, Task] = {task.problem_type: task for task in (SingleLabel(), MultiLabel(), Regression())}


def task_of(problem_type: ProblemType | None) -> Task:
    """The task of a problem type; until the labels are looked at, one label a row."""
    return TASKS[problem_type or "single_label_classification"]


def infer(values: Sequence[Any], separator: str | None, names: Sequence[str] | None = None) -> ProblemType:
    """The problem type that labels, as the first rows of a file hold them, are of.

    Lists are of several labels, or of several numbers where all in them are numbers and any is a float; so are texts
    where a separator is set. Numbers some of which have a fraction are regression's: whole ones are names of classes,
    and so are all where `data.labels` names numbers.

    Args:
        names: `data.labels`.
    """
    named = names is not None and all(as_number(name) is not None for name in names)
    lists = [value for value in values if isinstance(value, list | tuple)]
    if lists:
        inside = [plain(each) for value in lists for each in value]
        numbers = all(isinstance(each, int | float) and not isinstance(each, bool) for each in inside)
        has_float = any(isinstance(each, float) for each in inside)
        return "regression" if numbers and has_float else "multi_label_classification"
    if separator is not None:
        return "multi_label_classification"
    numbers = [as_number(value) for value in values if not _is_missing(plain(value))]
    known = [number for number in numbers if number is not None]
    if not named and len(known) == len(numbers) and any(number != round(number) for number in known):
        return "regression"
    return "single_label_classification"


def _is_missing(value: Any) -> bool:
    is_blank = isinstance(value, str | bytes) and not value.strip()
    return value is None or is_blank or (isinstance(value, float) and math.isnan(value))


def shown_metrics(record: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The metrics of a record that a terminal shows, in order: those of the task whose metrics it holds."""
    has = [task for task in TASKS.values() if f"{prefix}{task.metrics[0]}" in record]
    return [metric for task in has[:1] for metric in task.shown if f"{prefix}{metric}" in record]


def scores_in_words(record: Mapping[str, Any], prefix: str = "") -> str:
    """The scores of a record for a terminal."""
    return "  ".join(f"{metric} {record[f'{prefix}{metric}']:.4f}" for metric in shown_metrics(record, prefix))
