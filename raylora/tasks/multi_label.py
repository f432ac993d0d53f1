"""Any number of labels a row, none among them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from raylora.errors import DataError
from raylora.metrics import Scores
from raylora.tasks.answers import AS_IT_IS, HALF, Kind, LabelScore, Learned, Prediction, ProblemType, Wish, ranked
from raylora.tasks.calibration import best_temperature, best_thresholds, shared_threshold
from raylora.tasks.doubts import Doubts, confident_errors
from raylora.tasks.functions import Function, sigmoid
from raylora.tasks.parsed import SEPARATOR, LabelColumn, Parsed, as_text, no_rows, not_among, written_list
from raylora.tasks.ranking import by_label, expected_calibration_error
from raylora.tasks.single_label import f1_of, label_names, quoted_names, sort_labels
from raylora.tasks.task import MOST_WEIGHT, LabelCounts, Pooling, Task

if TYPE_CHECKING:
    import numpy as np


NONE = "-"  # written of a row without labels


@dataclass(frozen=True)
class MultiLabel(Task):
    """Targets are [N, C] float32, 1 where a row carries a label.

    A label is decided where its score reaches its threshold, 0.5 unless another is given; of a long row, where some
    window carries it. `subset_accuracy` is the share of rows all of whose labels are right; `f1_macro` the mean over
    labels that occur or are predicted; `roc_auc` and `average_precision` means over labels; `loss` and `log_loss` the
    mean binary cross-entropy over rows and labels, in nats.
    """

    problem_type: ClassVar[ProblemType] = "multi_label_classification"
    metrics: ClassVar[tuple[str, ...]] = (
        "f1_micro",
        "f1_macro",
        "roc_auc",
        "average_precision",
        "subset_accuracy",
        "log_loss",
        "loss",
    )
    shown: ClassVar[tuple[str, ...]] = ("f1_micro", "f1_macro", "subset_accuracy", "loss")
    decided: ClassVar[tuple[str, ...]] = ("f1_micro", "f1_macro", "subset_accuracy")
    losses: ClassVar[tuple[str, ...]] = ("cross_entropy", "focal")
    function: ClassVar[Function] = "sigmoid"
    pool_windows: ClassVar[Pooling] = "max"

    def parse(self, value: Any, column: LabelColumn) -> Parsed:
        """A list of labels, or one string of them between separators; none is an empty list or a blank string."""
        found = self._listed(value, column)
        if isinstance(found, Parsed):
            return found
        forms = [as_text(each, column.name) for each in found]
        fault = next((each.fault for each in forms if each.fault), None)
        names = sorted({each.form for each in forms})
        fault = fault or next(filter(None, (not_among(name, column) for name in names)), None)
        return Parsed(fault=fault) if fault else Parsed(json.dumps(names, ensure_ascii=False))

    def _listed(self, value: Any, column: LabelColumn) -> list[Any] | Parsed:
        if isinstance(value, bytes):
            value = value.decode("utf-8", "surrogateescape")
        if value is None:
            return Parsed(fault=f"'{column.name}' is null; a row without labels holds an empty list")
        if isinstance(value, str):
            if column.separator is None:
                return Parsed(
                    fault=f"'{column.name}' must be a list of labels, found the text {value[:40]!r}. Labels in one "
                    "text? Set data.label_separator"
                )
            if fault := written_list(value.strip(), column.name):
                return Parsed(fault=fault)
            return [each for each in value.split(column.separator) if each.strip()]
        if isinstance(value, list | tuple):
            return list(value)  # pyright: ignore[reportUnknownArgumentType]
        return [value]

    def written(self, form: str) -> str:
        return SEPARATOR.join(json.loads(form)) or NONE

    def form(self, target: "np.ndarray", labels: Sequence[str]) -> str:
        carried = sorted(label for label, is_there in zip(labels, target > HALF, strict=True) if is_there)
        return json.dumps(carried, ensure_ascii=False)

    def labels(self, forms: Sequence[str], rows: int, column: LabelColumn) -> tuple[str, ...]:
        if not rows:
            raise no_rows()
        found = sort_labels(sorted({label for form in forms for label in json.loads(form)}))
        if not found:
            raise DataError(f"none of the {rows} rows to train on carries a label. Is `data.label_column` right?")
        return column.labels or found

    def unknown(self, form: str, labels: Sequence[str]) -> list[str]:
        known = set(labels)
        return [label for label in json.loads(form) if label not in known]

    def targets(self, forms: Sequence[str], labels: Sequence[str]) -> "np.ndarray":
        import numpy as np

        index = {label: i for i, label in enumerate(labels)}
        targets = np.zeros((len(forms), len(labels)), dtype=np.float32)
        for row, form in zip(targets, forms, strict=True):
            row[[index[label] for label in json.loads(form) if label in index]] = 1
        return targets

    def strata(self, targets: "np.ndarray") -> "np.ndarray":
        """The rarest label of each row: what is rare is shared out first (after Sechidis et al. 2011)."""
        import numpy as np

        rarity = np.argsort(np.argsort(-targets.sum(axis=0), kind="stable"), kind="stable") + 1
        rank = (targets * rarity).max(axis=1, initial=0)  # 0: none
        return rank.astype(np.int64)

    def counts(self, targets: "np.ndarray", labels: Sequence[str]) -> dict[str, int]:
        return dict(zip(labels, targets.sum(axis=0).astype(int).tolist(), strict=True))

    def tally(self, forms: Mapping[str, int]) -> LabelCounts:
        counts: dict[str, int] = {}
        for form, rows in forms.items():
            for label in json.loads(form):
                counts[label] = counts.get(label, 0) + rows
        return LabelCounts(dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))))

    def in_words(self, targets: "np.ndarray", labels: Sequence[str]) -> str:
        return f"{targets.sum(axis=1).mean():.1f} a row of {label_names(labels)}"

    def weights(self, counts: "np.ndarray", rows: int, given: "np.ndarray | None") -> "np.ndarray":
        """Of a row that carries the label beside one that does not (PyTorch's `pos_weight`)."""
        import numpy as np

        return np.minimum((rows - counts) / np.maximum(counts, 1), MOST_WEIGHT) if given is None else given

    def check_learnable(self, targets: "np.ndarray") -> str | None:
        varies = (targets != targets[0]).any()
        return None if varies else "all rows of train carry the same labels"

    def score(self, outputs: "np.ndarray", targets: "np.ndarray", thresholds: "np.ndarray | None" = None) -> Scores:
        import numpy as np

        truth, logits = targets > HALF, outputs.astype(np.float64)
        decided = self.decided_scores(truth, self.decisions(outputs, thresholds), truth.shape[1])
        loss = float((np.logaddexp(0.0, logits) - logits * targets).mean())
        values = {**decided, **by_label(logits, truth), "log_loss": loss, "loss": loss}
        return Scores({metric: values[metric] for metric in self.metrics if metric in values}, len(targets))

    def decisions(self, outputs: "np.ndarray", thresholds: "np.ndarray | None" = None) -> "np.ndarray":
        if thresholds is None:
            return outputs > 0
        return sigmoid(outputs.astype(float)) >= thresholds

    def temperature(self, outputs: "np.ndarray", targets: "np.ndarray") -> float:
        """One for all labels; targets are smoothed as `SingleLabel` does."""
        import numpy as np

        logits, smooth = outputs.astype(np.float64), 1 / (len(targets) + 2)
        wanted = targets * (1 - 2 * smooth) + smooth

        def loss(temperature: float) -> float:
            return float((np.logaddexp(0.0, logits / temperature) - logits / temperature * wanted).mean())

        return best_temperature(loss, logits.size)

    def calibration_error(self, outputs: "np.ndarray", targets: "np.ndarray") -> float | None:
        """Over all rows and labels."""
        scores, said = sigmoid(outputs.astype(float)), outputs > 0
        return expected_calibration_error(
            (scores * said + (1 - scores) * ~said).ravel(), (said == (targets > HALF)).ravel()
        )

    def thresholds(self, outputs: "np.ndarray", targets: "np.ndarray", metric: str) -> "np.ndarray | None":
        """Each label's own for `f1_macro`, the mean of labels; else one for all, which is best for `f1_micro` where
        scores are probabilities."""
        scores, truth = sigmoid(outputs.astype(float)), targets > HALF
        return best_thresholds(scores, truth) if metric == "f1_macro" else shared_threshold(scores, truth)

    def doubts(self, outputs: "np.ndarray", targets: "np.ndarray") -> Doubts:
        """Each label by itself, carried or not; a row is as good as its worst (Thyagarajan et al. 2023)."""
        import numpy as np

        yes = sigmoid(outputs.astype(np.float64) / self.temperature(outputs, targets))
        carried = targets > HALF
        each = np.where(carried, yes, 1 - yes)
        pairs = [
            confident_errors(np.stack([1 - yes[:, c], yes[:, c]], axis=1), carried[:, c].astype(int))
            for c in range(targets.shape[1])
        ]
        wrong = np.stack(pairs, axis=1)
        suggested = np.where(wrong, ~carried, carried).astype(np.float32)
        quality, is_error = each.min(axis=1), wrong.max(axis=1)
        return Doubts(quality, is_error, suggested, np.lexsort((quality, ~is_error)))

    def purpose(self, labels: Sequence[str]) -> str:
        return f"Gives texts any number of {len(labels)} labels: {quoted_names(labels)}."

    def resampled(
        self, metric: str, draws: "np.ndarray", targets: "np.ndarray", decisions: "np.ndarray", num_labels: int
    ) -> "np.ndarray":
        import numpy as np

        truth, decided = targets > HALF, decisions > HALF
        if metric == "subset_accuracy":
            return draws @ (truth == decided).all(axis=1) / draws.sum(axis=1)
        if metric == "f1_micro":
            both, total = draws @ (truth & decided).sum(axis=1), draws @ (truth.sum(axis=1) + decided.sum(axis=1))
            return np.where(total > 0, 2 * both / np.maximum(total, 1), 0.0)
        columns = np.flatnonzero((truth | decided).any(axis=0))
        if not len(columns):
            return np.zeros(len(draws))
        f1s, occur = zip(*(f1_of(draws, truth[:, c], decided[:, c]) for c in columns), strict=True)
        return np.sum(f1s, axis=0) / np.maximum(np.sum(occur, axis=0), 1)

    def answers(self, outputs: "np.ndarray", learned: Learned, wish: Wish = AS_IT_IS) -> list[Prediction]:
        """What is decided depends on the probabilities, whatever function the caller names."""
        rows = ranked(learned.labels, self.scores(outputs, wish.function), outputs)
        decided = self.decisions(outputs, _thresholds(learned, wish)).tolist()
        return [
            _prediction(scores, dict(zip(learned.labels, said, strict=True)))
            for scores, said in zip(rows, decided, strict=True)
        ]

    def listed(self, prediction: Prediction, wish: Wish = AS_IT_IS) -> list[LabelScore]:
        """The labels that are decided; with `top_k`, and no threshold beside it, the best whatever theirs."""
        names = prediction.scores if wish.top_k and wish.threshold is None else prediction.labels
        return [LabelScore(name, prediction.scores[name]) for name in names][: wish.top_k]

    def in_text(self, prediction: Prediction) -> str:
        """A JSON list."""
        return json.dumps(prediction.labels, ensure_ascii=False)

    def columns(self, prediction: Prediction) -> list[str]:
        said = ", ".join(f"{label} {prediction.scores[label]:.4f}" for label in prediction.labels)
        return [said or f"- {prediction.score:.4f}"]

    def fields(self, labels: Sequence[str], all_scores: bool) -> dict[str, Kind]:
        """All that are decided stand beside the best."""
        first, *rest = super().fields(labels, all_scores).items()
        return dict([first, ("labels", "texts"), *rest])

    def cells(self, prediction: Prediction, labels: Sequence[str], all_scores: bool) -> list[Any]:
        first, *rest = super().cells(prediction, labels, all_scores)
        return [first, list(prediction.labels), *rest]

    def changed(self, before: "np.ndarray", after: "np.ndarray", thresholds: "np.ndarray | None") -> str:
        others = (self.decisions(before, thresholds) != self.decisions(after, thresholds)).any(axis=1)
        return f"{int(others.sum())} get other labels"


def _thresholds(learned: Learned, wish: Wish) -> "np.ndarray | None":
    """[C], of `Learned.threshold_of_each`."""
    import numpy as np

    return learned.threshold_of_each() if wish.threshold is None else np.full(len(learned.labels), wish.threshold)


def _prediction(scores: dict[str, float], decided: dict[str, bool]) -> Prediction:
    labels = tuple(label for label in scores if decided[label])
    return Prediction(next(iter(labels), None), scores[next(iter(labels or scores))], scores, labels)
