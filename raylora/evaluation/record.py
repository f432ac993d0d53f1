"""What an evaluation yields. `as_dict` of each is what evaluation.json holds: docs/evaluate.md tells its shape."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from raylora.tasks import ProblemType
from raylora.tasks.exams import Group


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % bootstrap interval, whose ends are NaN where no resample tells of it."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4f} ({self.low:.4f} to {self.high:.4f})"


@dataclass(frozen=True)
class Confusion:
    """`counts[i][j]` rows that carry `labels[i]` and are said to carry `labels[j]`."""

    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Bin:
    """Decisions whose claimed probability lies from `low` to `high`: the mean that they claim, and the share that is
    right."""

    low: float
    high: float
    rows: int
    claimed: float
    right: float


@dataclass(frozen=True)
class Calibration:
    """Whether scores are what they claim; `ece` is the expected calibration error, the mean gap over all bins."""

    ece: float
    bins: tuple[Bin, ...]


@dataclass(frozen=True)
class Coverage:
    """The surest `rows`, a share `coverage` of all: their lowest score, and how many of them are right."""

    coverage: float
    rows: int
    score: float
    accuracy: float


@dataclass(frozen=True)
class Promise:
    """What the adapter promises of answers from `score` on, and what it keeps: of `rows` that reach it, a share
    `coverage` of all, `right`; NaN where none does."""

    accuracy: float
    score: float
    rows: int
    coverage: float
    right: float


@dataclass(frozen=True)
class Slice:
    """Rows with one `value` of `by`, beside all others.

    Attributes:
        metric: the task's row metric, of the slice.
        merit, rest: mean merit of the slice's rows and of all others.
        p, p_adjusted: that these rows are no worse than the others, before and after Holm's correction; None where the
            slice, or what lies outside, is too small to be tested.
        worse: whether `p_adjusted` is below 0.05.
    """

    by: str
    value: str
    rows: int
    metric: Estimate
    merit: float
    rest: float
    p: float | None
    p_adjusted: float | None
    worse: bool


@dataclass(frozen=True)
class Robustness:
    """What becomes of answers when texts are altered.

    Attributes:
        changed: texts that the alteration changed.
        moved: the share of answers that flip, or, of numbers, how far they move.
        metrics: the scores afterwards.
    """

    kind: str
    changed: int
    moved: Estimate
    metrics: dict[str, float]


@dataclass(frozen=True)
class Evaluation:
    """An adapter on labelled rows.

    Attributes:
        name: as the adapter was named by the caller.
        data: which rows: `split`, `addresses`, `bad_rows` that were left out, `unknown_labels` that the adapter does
            not know, with the rows of each, which were left out, too.
        metric: the run's own metric, by which adapters are compared.
        row_metric, merit, movement: what slices and robustness tell.
        groups: by label, or by quarters of numbers.
        confusion, calibration: None where the task has none; `coverage` and `promises` are empty there.
    """

    name: str
    base_model: str
    problem_type: ProblemType
    labels: tuple[str, ...]
    data: dict[str, Any]
    rows: int
    metric: str
    metrics: dict[str, Estimate]
    row_metric: str
    merit: str
    movement: str
    groups: tuple[Group, ...]
    confusion: Confusion | None
    calibration: Calibration | None
    coverage: tuple[Coverage, ...]
    promises: tuple[Promise, ...]
    slices: tuple[Slice, ...]
    slice_test: str
    robustness: tuple[Robustness, ...]
    notes: tuple[str, ...]

    @property
    def scores(self) -> dict[str, float]:
        return {name: estimate.value for name, estimate in self.metrics.items()}

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return _plain(asdict(self))


@dataclass(frozen=True)
class McNemar:
    """Rows that one of two alone has right, and the exact test's two-sided p (McNemar 1947)."""

    only_first: int
    only_second: int
    p: float


@dataclass(frozen=True)
class Comparison:
    """Two adapters on the same rows.

    Attributes:
        metric: by which it is decided whether the difference is real.
        differences: of each metric, how much better the second is than the first, below zero where it is worse.
        mcnemar: None where rows are not simply right or wrong.
        test: which one `p` is of; `p_adjusted` is Holm's over all pairs, and `real` whether that is below 0.05.
        rows_needed: rows like these that would settle a difference of this size 4 times in 5; None of no difference.
        power_method: how they are reckoned.
        words: all this in a sentence or two.
    """

    first: str
    second: str
    rows: int
    metric: str
    differences: dict[str, Estimate]
    mcnemar: McNemar | None
    test: str
    p: float
    p_adjusted: float
    real: bool
    rows_needed: int | None
    power_method: str
    words: str

    def as_dict(self) -> dict[str, Any]:
        return _plain(asdict(self))


@dataclass(frozen=True)
class Evaluations:
    """One or more adapters on the same rows, and each pair of them compared."""

    adapters: tuple[Evaluation, ...]
    comparisons: tuple[Comparison, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return {
            "adapters": [each.as_dict() for each in self.adapters],
            "comparisons": [each.as_dict() for each in self.comparisons],
        }


def _plain(value: Any) -> Any:
    """Without NaN, which JSON does not have."""
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
