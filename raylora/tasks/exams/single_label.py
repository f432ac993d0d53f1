"""One label a row, examined."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from raylora.tasks.exams.exam import Claims, Exam, Group, Resampler
from raylora.tasks.exams.resampled import Counts, Ranking, calibration_errors, means, share
from raylora.tasks.functions import log_softmax
from raylora.tasks.single_label import SingleLabel

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class SingleLabelExam(Exam):
    """A row's merit is 1 where its label is right, else 0."""

    task: SingleLabel

    row_metric: ClassVar[str] = "accuracy"
    merit: ClassVar[str] = "share of rows that are right"
    movement: ClassVar[str] = "share of answers that flip"
    right_or_wrong: ClassVar[bool] = True

    def resampler(
        self, outputs: "np.ndarray", targets: "np.ndarray", thresholds: "np.ndarray | None" = None
    ) -> Resampler:
        import numpy as np

        said, logs = self.task.decisions(outputs, thresholds), log_softmax(outputs)
        losses, claimed, right = -logs[np.arange(len(targets)), targets], np.exp(logs.max(axis=1)), said == targets
        all_labels = np.arange(outputs.shape[1])
        labels = np.array([self.task.positive]) if len(all_labels) == 2 else all_labels
        truth, decided = targets[:, None] == all_labels, said[:, None] == all_labels
        ranking = Ranking(logs[:, labels], truth[:, labels])

        def values_of(draws: "np.ndarray") -> "dict[str, np.ndarray]":
            counts, loss = Counts(draws, truth, decided), means(draws, losses)
            each = counts.by_label
            one = {
                name: v[:, self.task.positive] if len(all_labels) == 2 else counts.mean(v) for name, v in each.items()
            }
            return {
                "accuracy": means(draws, right),
                **one,
                "f1_macro": counts.mean(each["f1"]),
                **ranking.of(draws),
                "mcc": _matthews(counts),
                "log_loss": loss,
                "ece": calibration_errors(draws, claimed, right),
                "loss": loss,
            }

        return values_of

    def merits(self, targets: "np.ndarray", decisions: "np.ndarray") -> "np.ndarray":
        return (targets == decisions).astype(float)

    def moved(self, before: "np.ndarray", after: "np.ndarray") -> "np.ndarray":
        return (before != after).astype(float)

    def groups(self, targets: "np.ndarray", decisions: "np.ndarray", labels: Sequence[str]) -> list[Group]:
        import numpy as np

        ids = np.arange(len(labels))
        return label_groups(targets[:, None] == ids, decisions[:, None] == ids, labels)

    def confusion(self, targets: "np.ndarray", decisions: "np.ndarray", labels: Sequence[str]) -> "np.ndarray | None":
        import numpy as np

        size = len(labels)
        return np.bincount(targets * size + decisions, minlength=size * size).reshape(size, size)

    def claims(
        self, outputs: "np.ndarray", targets: "np.ndarray", thresholds: "np.ndarray | None" = None
    ) -> Claims | None:
        return Claims(self.best_scores(outputs), self.task.decisions(outputs, thresholds) == targets)

    def certainty(self, outputs: "np.ndarray") -> "np.ndarray | None":
        return self.best_scores(outputs)

    def told(self, decisions: "np.ndarray", labels: Sequence[str]) -> list[Any]:
        return [labels[i] for i in decisions.tolist()]

    def best_scores(self, outputs: "np.ndarray") -> "np.ndarray":
        import numpy as np

        return np.exp(log_softmax(outputs).max(axis=1))


def label_groups(truth: "np.ndarray", decided: "np.ndarray", labels: Sequence[str]) -> list[Group]:
    """Args:
    truth, decided: [N, C] bool.
    """
    import numpy as np

    counts = Counts(np.ones((1, len(truth))), truth, decided)
    each = {name: values[0].tolist() for name, values in counts.by_label.items()}
    return [
        Group(
            label, int(counts.held[0, i]), {**{n: v[i] for n, v in each.items()}, "predicted": int(counts.said[0, i])}
        )
        for i, label in enumerate(labels)
    ]


def _matthews(counts: Counts) -> "np.ndarray":
    """[R] (Gorodkin 2004); 0 where all rows carry, or are said to carry, one label."""
    import numpy as np

    rows = counts.held.sum(axis=1)
    together = counts.both.sum(axis=1) * rows - (counts.held * counts.said).sum(axis=1)
    spread = (rows**2 - (counts.held**2).sum(axis=1)) * (rows**2 - (counts.said**2).sum(axis=1))
    return share(together, np.sqrt(spread))
