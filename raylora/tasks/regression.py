"""A number, or several, a row."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from raylora.errors import DataError
from raylora.metrics import Scores
from raylora.tasks.answers import AS_IT_IS, Kind, Learned, Prediction, ProblemType, Wish
from raylora.tasks.doubts import Doubts
from raylora.tasks.functions import Function
from raylora.tasks.parsed import SEPARATOR, LabelColumn, Parsed, as_number, every, no_rows
from raylora.tasks.single_label import quoted_names
from raylora.tasks.task import LabelCounts, NumberRange, Task, Units

if TYPE_CHECKING:
    import numpy as np

STRATA, ROWS_OF_STRATUM = 10, 5
OF_SPREAD = ("pearson", "spearman", "r2")  # metrics that are 0 whatever is said of numbers that are all equal
LEAST_SPREAD = 1e-12  # a variance below it, in terms of the mean square, is rounding
OUTLYING = 3.0  # robust deviations of residuals


@dataclass(frozen=True)
class Regression(Task):
    """Targets are [N, M] float32, in the data's own unit; with several numbers a row, metrics are means over them.

    `loss` is the mean squared error of standardised numbers: 1 for who always says the mean. It takes the deviation of
    the rows that are scored.
    """

    problem_type: ClassVar[ProblemType] = "regression"
    metrics: ClassVar[tuple[str, ...]] = ("pearson", "spearman", "mse", "mae", "r2", "loss")
    shown: ClassVar[tuple[str, ...]] = ("pearson", "spearman", "mae", "r2", "loss")
    decided: ClassVar[tuple[str, ...]] = ("pearson", "spearman", "mse", "mae", "r2")
    losses: ClassVar[tuple[str, ...]] = ("mse", "huber")
    has_classes: ClassVar[bool] = False
    function: ClassVar[Function] = "none"

    def parse(self, value: Any, column: LabelColumn) -> Parsed:
        given = value.split(column.separator) if isinstance(value, str) and column.separator else value
        parts = list(given) if isinstance(given, list | tuple) else [given]  # pyright: ignore[reportUnknownArgumentType]
        numbers = [as_number(part) for part in parts]
        if not parts or value is None:
            return Parsed(fault=f"'{column.name}' is {'null' if value is None else 'an empty list'}")
        wrong = next((part for part, number in zip(parts, numbers, strict=True) if number is None), None)
        if any(number is None for number in numbers):
            return Parsed(fault=f"'{column.name}' must be a finite number, found {str(wrong)[:40]!r}")
        if column.labels is not None and len(numbers) != len(column.labels):
            return Parsed(
                fault=f"'{column.name}' holds {len(numbers)} numbers, `data.labels` names {len(column.labels)}"
            )
        return Parsed(json.dumps(numbers))

    def written(self, form: str) -> str:
        return SEPARATOR.join(f"{number:g}" for number in json.loads(form))

    def form(self, target: "np.ndarray", labels: Sequence[str]) -> str:
        return json.dumps(target.tolist())

    def labels(self, forms: Sequence[str], rows: int, column: LabelColumn) -> tuple[str, ...]:
        if not rows:
            raise no_rows()
        sizes = {len(json.loads(form)) for form in forms}
        if len(sizes) > 1:
            raise DataError(
                f"'{column.name}' holds {min(sizes)} numbers in some rows and {max(sizes)} in others: each row must "
                "hold as many."
            )
        if len(forms) == 1:
            raise DataError(
                f"{every(rows)} one number, {json.loads(forms[0])[0]:g}: there is nothing to learn, which takes two "
                f"different ones. Is `data.label_column` ('{column.name}') right?"
            )
        (size,) = sizes
        names = (column.name,) if size == 1 else tuple(f"{column.name}_{i}" for i in range(size))
        return column.labels or names

    def unknown(self, form: str, labels: Sequence[str]) -> list[str]:
        count = len(json.loads(form))
        return [] if count == len(labels) else [f"{count} numbers"]

    def targets(self, forms: Sequence[str], labels: Sequence[str]) -> "np.ndarray":
        import numpy as np

        rows = [(json.loads(form) + [0.0] * len(labels))[: len(labels)] for form in forms]
        return np.array(rows, dtype=np.float32).reshape(len(forms), len(labels))

    def strata(self, targets: "np.ndarray") -> "np.ndarray":
        """Tenths of the rows, from the lowest mean to the highest; of few rows larger shares, of five rows or more, so
        that some of each are left to train on."""
        import numpy as np

        means, count = targets.mean(axis=1), min(STRATA, max(1, len(targets) // ROWS_OF_STRATUM))
        return np.searchsorted(np.quantile(means, np.arange(1, count) / count), means, side="right").astype(np.int64)

    def counts(self, targets: "np.ndarray", labels: Sequence[str]) -> dict[str, int]:
        return dict.fromkeys(labels, len(targets))

    def tally(self, forms: Mapping[str, int]) -> LabelCounts | NumberRange:
        """Of all numbers of a row together."""
        import numpy as np

        rows = [json.loads(form) for form in forms]
        if not rows:
            return LabelCounts({})
        numbers, counts = np.concatenate(rows), np.repeat(list(forms.values()), [len(row) for row in rows])
        return NumberRange(float(numbers.min()), float(np.average(numbers, weights=counts)), float(numbers.max()))

    def in_words(self, targets: "np.ndarray", labels: Sequence[str]) -> str:
        shown = [
            f"{label} {column.min():g} to {column.max():g}, mean {column.mean():.4g}"
            for label, column in zip(labels[:5], targets.T, strict=False)
        ]
        return "numbers: " + "; ".join(shown) + ("; …" if len(labels) > len(shown) else "")

    def units(self, targets: "np.ndarray", num_outputs: int) -> Units:
        import numpy as np

        numbers = targets.astype(np.float64)
        deviation = numbers.std(axis=0)
        varies = deviation**2 > LEAST_SPREAD * (numbers**2).mean(axis=0)
        return Units(np.where(varies, deviation, 1.0), numbers.mean(axis=0))

    def standard(self, units: Units, targets: "np.ndarray") -> "np.ndarray":
        return (targets - units.shift) / units.scale

    def check_learnable(self, targets: "np.ndarray") -> str | None:
        return "all rows of train carry one number" if (targets == targets[0]).all() else None

    def nothing_to_learn(self, targets: "np.ndarray") -> str | None:
        """One number is the mean, which is where a training starts."""
        return self.check_learnable(targets)

    def untold(self, metric: str, targets: "np.ndarray") -> str | None:
        is_one = metric in OF_SPREAD and (targets == targets[0]).all()
        return f"{every(len(targets))} one number" if is_one else None

    def score(self, outputs: "np.ndarray", targets: "np.ndarray", thresholds: "np.ndarray | None" = None) -> Scores:
        import numpy as np

        values = self.decided_scores(targets, outputs, targets.shape[1])
        scale = self.units(targets, targets.shape[1]).scale
        loss = float((((outputs - targets.astype(np.float64)) / scale) ** 2).mean())
        return Scores({**values, "loss": loss}, len(targets))

    def decisions(self, outputs: "np.ndarray", thresholds: "np.ndarray | None" = None) -> "np.ndarray":
        return outputs

    def doubts(self, outputs: "np.ndarray", targets: "np.ndarray") -> Doubts:
        """By a row's largest residual, in robust deviations of all residuals: an error where it is above three."""
        import numpy as np

        residuals = outputs - targets.astype(np.float64)
        apart = np.abs(residuals - np.median(residuals, axis=0))
        # as the standard deviation where errors are normal, but blind to the few rows that are looked for
        worst = (apart / np.maximum(1.4826 * np.median(apart, axis=0), 1e-12)).max(axis=1)
        return Doubts(np.exp(-worst), worst > OUTLYING, outputs, np.argsort(-worst, kind="stable"))

    def purpose(self, labels: Sequence[str]) -> str:
        return f"Gives texts numbers: {quoted_names(labels)}."

    def resampled(
        self, metric: str, draws: "np.ndarray", targets: "np.ndarray", decisions: "np.ndarray", num_labels: int
    ) -> "np.ndarray":
        import numpy as np

        columns = [
            _values(metric, draws, targets[:, i].astype(np.float64), decisions[:, i].astype(np.float64))
            for i in range(targets.shape[1])
        ]
        return np.mean(columns, axis=0)

    def answers(self, outputs: "np.ndarray", learned: Learned, wish: Wish = AS_IT_IS) -> list[Prediction]:
        """Numbers are not decided upon: all are told, in the order of their names."""
        rows = self.scores(outputs, wish.function).tolist()
        return [Prediction(learned.labels[0], row[0], _by_name(learned, row), learned.labels) for row in rows]

    def columns(self, prediction: Prediction) -> list[str]:
        return [f"{name} {number:.6g}" for name, number in prediction.scores.items()]

    def fields(self, labels: Sequence[str], all_scores: bool) -> dict[str, Kind]:
        """A column of each number, by its name where there are several."""
        return {"value": "number"} if len(labels) == 1 else {f"value_{label}": "number" for label in labels}

    def cells(self, prediction: Prediction, labels: Sequence[str], all_scores: bool) -> list[Any]:
        return [prediction.scores[label] for label in labels]

    def counted(self, prediction: Prediction) -> tuple[str | None, ...]:
        return ()

    def changed(self, before: "np.ndarray", after: "np.ndarray", thresholds: "np.ndarray | None") -> str:
        import numpy as np

        return f"the numbers move by {float(np.abs(before - after).mean()):.4g} on average"


def _by_name(learned: Learned, numbers: list[float]) -> dict[str, float]:
    return dict(zip(learned.labels, numbers, strict=True))


def _values(metric: str, draws: "np.ndarray", truth: "np.ndarray", said: "np.ndarray") -> "np.ndarray":
    """[R] of each resample, which `draws` [R, N] how often from each row."""
    import numpy as np
    from scipy.stats import rankdata

    rows = draws.sum(axis=1)
    if metric == "mse":
        return draws @ (truth - said) ** 2 / rows
    if metric == "mae":
        return draws @ np.abs(truth - said) / rows
    if metric == "r2":
        truth, said = truth - truth.mean(), said - truth.mean()
        mean = draws @ truth / rows
        spread = draws @ truth**2 / rows - mean**2
        varies = spread > LEAST_SPREAD * (truth**2).mean()
        return np.where(varies, 1 - (draws @ (truth - said) ** 2 / rows) / np.where(varies, spread, 1), 0.0)
    if metric == "spearman":  # of a resample: the ranks among all rows, which is close and costs one sort
        truth, said = rankdata(truth), rankdata(said)
    return _correlation(draws / rows[:, None], _standard(truth), _standard(said))


def _standard(numbers: "np.ndarray") -> "np.ndarray":
    """Of mean 0 and deviation 1; zeros where they do not vary."""
    import numpy as np

    centred, mean_square = numbers - numbers.mean(), (numbers**2).mean()
    variance = (centred**2).mean()
    return centred / np.sqrt(variance) if variance > LEAST_SPREAD * mean_square else np.zeros_like(centred)


def _correlation(shares: "np.ndarray", a: "np.ndarray", b: "np.ndarray") -> "np.ndarray":
    """Pearson's of standardised numbers; 0 where one of the two does not vary."""
    import numpy as np

    mean_a, mean_b = shares @ a, shares @ b
    both = shares @ (a * b) - mean_a * mean_b
    spread = (shares @ a**2 - mean_a**2) * (shares @ b**2 - mean_b**2)
    return np.where(spread > LEAST_SPREAD, both / np.sqrt(np.maximum(spread, LEAST_SPREAD)), 0.0)
