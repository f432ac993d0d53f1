"""One label a row."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from raylora.errors import ConfigError, DataError
from raylora.metrics import Scores
from raylora.tasks.answers import AS_IT_IS, LabelScore, Learned, Prediction, ProblemType, Wish, ranked
from raylora.tasks.calibration import PROMISES, MinScore, best_temperature, min_score
from raylora.tasks.doubts import Doubts, by_confidence
from raylora.tasks.functions import Function, log_softmax, softmax
from raylora.tasks.markdown import code
from raylora.tasks.parsed import LabelColumn, Parsed, as_text, every, no_rows, not_among, written_list
from raylora.tasks.ranking import by_label, expected_calibration_error
from raylora.tasks.task import MOST_WEIGHT, Task

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class SingleLabel(Task):
    """Targets are label ids [N] int64.

    `f1`, `precision` and `recall` are those of the positive label where there are two labels, and means over labels
    where there are more; `f1_macro` the mean over labels that occur or are predicted; `roc_auc` and `average_precision`
    likewise; `loss` and `log_loss` the mean cross-entropy over rows, in nats.

    Args:
        positive: id of the positive label of two: the second, as scikit-learn's `pos_label` and GLUE have it.
    """

    positive: int = 1

    problem_type: ClassVar[ProblemType] = "single_label_classification"
    metrics: ClassVar[tuple[str, ...]] = (
        "accuracy",
        "f1",
        "f1_macro",
        "precision",
        "recall",
        "roc_auc",
        "average_precision",
        "mcc",
        "log_loss",
        "ece",
        "loss",
    )
    shown: ClassVar[tuple[str, ...]] = ("accuracy", "f1", "f1_macro", "loss")
    decided: ClassVar[tuple[str, ...]] = ("accuracy", "f1", "f1_macro")
    losses: ClassVar[tuple[str, ...]] = ("cross_entropy", "focal")
    fewest_labels: ClassVar[int] = 2
    function: ClassVar[Function] = "softmax"

    def parse(self, value: Any, column: LabelColumn) -> Parsed:
        found = as_text(value, column.name)
        fault = found.fault or written_list(found.form, column.name) or not_among(found.form, column)
        return Parsed(fault=fault) if fault else found

    def form(self, target: "np.ndarray", labels: Sequence[str]) -> str:
        return labels[int(target)]

    def labels(self, forms: Sequence[str], rows: int, column: LabelColumn) -> tuple[str, ...]:
        """As configured, or sorted (as numbers where all are)."""
        found = sort_labels(forms)
        if not rows:
            raise no_rows()
        labels = column.labels or found
        if len(found) == 1:
            raise DataError(
                f"{every(rows)} one label, '{found[0]}'; a classifier needs two. "
                f"Is `data.label_column` ('{column.name}') right?"
            )
        if len(labels) > rows:
            raise DataError(f"`data.labels` names {len(labels)} labels, more than the {rows} rows to train on.")
        if len(found) == rows and rows > 2:
            raise DataError(
                f"{rows} rows carry {len(found)} labels, each its own: '{column.name}' looks like an id, not a label. "
                "Set `data.label_column`."
            )
        return labels

    def unknown(self, form: str, labels: Sequence[str]) -> list[str]:
        return [] if form in labels else [form]

    def targets(self, forms: Sequence[str], labels: Sequence[str]) -> "np.ndarray":
        import numpy as np

        index = {label: i for i, label in enumerate(labels)}
        return np.array([index.get(form, -1) for form in forms], dtype=np.int64)

    def strata(self, targets: "np.ndarray") -> "np.ndarray":
        return targets

    def on_both_sides(self, labels: Sequence[str]) -> list[str] | None:
        return list(labels)

    def counts(self, targets: "np.ndarray", labels: Sequence[str]) -> dict[str, int]:
        import numpy as np

        return dict(zip(labels, np.bincount(targets, minlength=len(labels)).tolist(), strict=True))

    def in_words(self, targets: "np.ndarray", labels: Sequence[str]) -> str:
        return label_names(labels)

    def for_labels(self, labels: Sequence[str], positive_label: str | None) -> "SingleLabel":
        if positive_label is None:
            return self
        if len(labels) != 2 or positive_label not in labels:
            raise ConfigError(
                f"`data.positive_label` must be one of two labels, found '{positive_label}' of {len(labels)} labels: "
                f"{', '.join(labels[:10])}."
            )
        return replace(self, positive=labels.index(positive_label))

    def weights(self, counts: "np.ndarray", rows: int, given: "np.ndarray | None") -> "np.ndarray":
        """Of a label's rows, scaled so that the mean over train rows is 1."""
        import numpy as np

        wanted = np.minimum(rows / len(counts) / np.maximum(counts, 1), MOST_WEIGHT) if given is None else given
        return wanted * rows / (wanted * counts).sum()

    def check_learnable(self, targets: "np.ndarray") -> str | None:
        return "all rows of train carry one label" if (targets == targets[0]).all() else None

    def score(self, outputs: "np.ndarray", targets: "np.ndarray", thresholds: "np.ndarray | None" = None) -> Scores:
        import numpy as np
        from sklearn.metrics import accuracy_score, matthews_corrcoef, precision_recall_fscore_support

        predicted, logs = outputs.argmax(axis=1), log_softmax(outputs)
        loss = float(-logs[np.arange(len(targets)), targets].mean())
        present = np.unique(np.concatenate([targets, predicted]))
        each: Any = {"average": None, "zero_division": 0}  # a class never predicted has precision 0, not a warning
        found: Any = precision_recall_fscore_support(targets, predicted, labels=present, **each)
        one = present == self.positive if outputs.shape[1] == 2 else None
        precision, recall, f1 = (float(v[one].sum() if one is not None else v.mean()) for v in found[:3])
        values = {
            "accuracy": float(accuracy_score(targets, predicted)),
            "f1": f1,
            "f1_macro": float(found[2].mean()),
            "precision": precision,
            "recall": recall,
            **self._ranking(logs, targets),
            "mcc": float(matthews_corrcoef(targets, predicted)) if len(present) > 1 else 0.0,
            "log_loss": loss,
            "ece": expected_calibration_error(np.exp(logs.max(axis=1)), predicted == targets),
            "loss": loss,
        }
        return Scores(values, len(targets))

    def _ranking(self, logs: "np.ndarray", targets: "np.ndarray") -> dict[str, float]:
        import numpy as np

        columns = np.array([self.positive]) if logs.shape[1] == 2 else np.arange(logs.shape[1])
        return by_label(logs[:, columns], targets[:, None] == columns)

    def decisions(self, outputs: "np.ndarray", thresholds: "np.ndarray | None" = None) -> "np.ndarray":
        return outputs.argmax(axis=1)

    def temperature(self, outputs: "np.ndarray", targets: "np.ndarray") -> float:
        """Targets are smoothed by one row in all (Platt 1999, sec. 2.2): few rows, all right, prove no certainty."""
        import numpy as np

        rows, others = len(targets), outputs.shape[1] - 1
        own, all_logits = outputs[np.arange(rows), targets].astype(np.float64), outputs.astype(np.float64)
        smooth = 1 / (rows + 2)
        wanted = (1 - smooth) * own + smooth * (all_logits.sum(axis=1) - own) / max(others, 1)

        def loss(temperature: float) -> float:
            highest = all_logits.max(axis=1)
            sums = np.log(np.exp((all_logits - highest[:, None]) / temperature).sum(axis=1)) + highest / temperature
            return float((sums - wanted / temperature).mean())

        return best_temperature(loss, rows)

    def calibration_error(self, outputs: "np.ndarray", targets: "np.ndarray") -> float | None:
        import numpy as np

        return expected_calibration_error(np.exp(log_softmax(outputs).max(axis=1)), outputs.argmax(axis=1) == targets)

    def min_scores(self, outputs: "np.ndarray", targets: "np.ndarray") -> dict[str, MinScore]:
        import numpy as np

        scores, right = np.exp(log_softmax(outputs).max(axis=1)), outputs.argmax(axis=1) == targets
        found = {_promise(promise): min_score(scores, right, promise) for promise in PROMISES}
        return {promise: each for promise, each in found.items() if each}

    def doubts(self, outputs: "np.ndarray", targets: "np.ndarray") -> Doubts:
        return by_confidence(softmax(outputs.astype("float64") / self.temperature(outputs, targets)), targets)

    def purpose(self, labels: Sequence[str]) -> str:
        return f"Sorts texts into {len(labels)} labels: {quoted_names(labels)}."

    def titles(self, labels: Sequence[str]) -> list[str]:
        f1 = f"F1 ({code(labels[self.positive])})" if len(labels) == 2 else "F1"
        return ["accuracy", f1, "F1 (macro)", "loss"]

    def resampled(
        self, metric: str, draws: "np.ndarray", targets: "np.ndarray", decisions: "np.ndarray", num_labels: int
    ) -> "np.ndarray":
        import numpy as np

        if metric == "accuracy":
            return draws @ (targets == decisions) / draws.sum(axis=1)
        if metric == "f1" and num_labels == 2:
            return f1_of(draws, targets == self.positive, decisions == self.positive)[0]
        labels = np.unique(np.concatenate([targets, decisions]))
        f1s, occur = zip(*(f1_of(draws, targets == label, decisions == label) for label in labels), strict=True)
        return np.sum(f1s, axis=0) / np.sum(occur, axis=0)

    def check(self, wish: Wish, learned: Learned) -> None:
        super().check(wish, learned)
        if wish.min_accuracy is not None and _promise(wish.min_accuracy) not in learned.min_scores:
            raise ConfigError(
                f"`min_accuracy` {wish.min_accuracy:g} is not among what this adapter promises, which is "
                f"{_promised(learned)}."
            )

    def answers(self, outputs: "np.ndarray", learned: Learned, wish: Wish = AS_IT_IS) -> list[Prediction]:
        rows = ranked(learned.labels, self.scores(outputs, wish.function), outputs)
        return [_prediction(row, sure) for row, sure in zip(rows, self._sure(outputs, learned, wish), strict=True)]

    def _sure(self, outputs: "np.ndarray", learned: Learned, wish: Wish) -> list[bool]:
        """Of each row whether its best score, a probability whatever function the caller names, is high enough."""
        if wish.min_accuracy is None:
            return [True] * len(outputs)
        least = learned.min_scores[_promise(wish.min_accuracy)]["score"]
        return (self.scores(outputs).max(axis=1) >= least).tolist()

    def listed(self, prediction: Prediction, wish: Wish = AS_IT_IS) -> list[LabelScore]:
        """All labels, or one entry without a label where the adapter abstains."""
        if prediction.label is None:
            return [LabelScore(None, prediction.score)]
        return super().listed(prediction, wish)

    def columns(self, prediction: Prediction) -> list[str]:
        return ["-" if prediction.label is None else prediction.label, f"{prediction.score:.4f}"]

    def changed(self, before: "np.ndarray", after: "np.ndarray", thresholds: "np.ndarray | None") -> str:
        return f"{int((self.decisions(before) != self.decisions(after)).sum())} get another label"


def _prediction(scores: dict[str, float], sure: bool) -> Prediction:
    label, score = next(iter(scores.items()))
    return Prediction(label if sure else None, score, scores, (label,) if sure else ())


def _promise(accuracy: float) -> str:
    return f"{accuracy:g}"


def _promised(learned: Learned) -> str:
    """By what share of the validation rows each promise is kept."""
    each = [f"{promise} ({100 * known['coverage']:.1f} % of texts)" for promise, known in learned.min_scores.items()]
    return ", ".join(each) or "none: its validation rows bore none out, or it was saved before there were any"


def sort_labels(forms: Sequence[str]) -> tuple[str, ...]:
    """As numbers where all are."""
    are_numbers = all(re.fullmatch(r"-?\d{1,18}", form) for form in forms)
    return tuple(sorted(forms, key=(lambda form: (int(form), form)) if are_numbers else None))  # 1 and 01 in one order


def quoted_names(labels: Sequence[str]) -> str:
    shown = ", ".join(map(code, labels[:30]))
    return f"{shown} and {len(labels) - 30} more" if len(labels) > 30 else shown


def label_names(labels: Sequence[str]) -> str:
    return f"{len(labels)} labels: {', '.join(labels[:10])}" + (", …" if len(labels) > 10 else "")


def f1_of(draws: "np.ndarray", truth: "np.ndarray", predicted: "np.ndarray") -> tuple[Any, Any]:
    """[R] F1 of a label in each resample, 0 where it neither is held nor predicted; and [R] whether it is.

    Args:
        draws: [R, N].
        truth, predicted: [N] bool.
    """
    import numpy as np

    both = draws @ (truth & predicted)
    total = draws @ truth + draws @ predicted
    return np.where(total > 0, 2 * both / np.maximum(total, 1), 0.0), total > 0
