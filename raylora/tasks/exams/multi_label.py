"""Any number of labels a row, examined."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from raylora.tasks.answers import HALF
from raylora.tasks.exams.exam import Claims, Exam, Group, Resampler
from raylora.tasks.exams.resampled import Counts, Ranking, means, share
from raylora.tasks.exams.single_label import label_groups
from raylora.tasks.functions import sigmoid

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class MultiLabelExam(Exam):
    """A row's merit is the share of its labels, held or said, that are both (Jaccard); 1 where there is none."""

    row_metric: ClassVar[str] = "f1_micro"
    merit: ClassVar[str] = "mean over rows of the share of labels, held or said, that are both"
    movement: ClassVar[str] = "share of answers that flip"

    def resampler(
        self, outputs: "np.ndarray", targets: "np.ndarray", thresholds: "np.ndarray | None" = None
    ) -> Resampler:
        import numpy as np

        truth, logits = targets > HALF, outputs.astype(np.float64)
        decided = self.task.decisions(outputs, thresholds)
        losses = (np.logaddexp(0.0, logits) - logits * targets).mean(axis=1)
        whole, ranking = (truth == decided).all(axis=1), Ranking(logits, truth)

        def values_of(draws: "np.ndarray") -> "dict[str, np.ndarray]":
            counts, loss = Counts(draws, truth, decided), means(draws, losses)
            both, total = counts.both.sum(axis=1), (counts.held + counts.said).sum(axis=1)
            return {
                "f1_micro": share(2 * both, total),
                "f1_macro": counts.mean(counts.by_label["f1"]),
                **ranking.of(draws),
                "subset_accuracy": means(draws, whole),
                "log_loss": loss,
                "loss": loss,
            }

        return values_of

    def merits(self, targets: "np.ndarray", decisions: "np.ndarray") -> "np.ndarray":
        import numpy as np

        truth, decided = targets > HALF, decisions > HALF
        either = (truth | decided).sum(axis=1)
        return np.where(either > 0, (truth & decided).sum(axis=1) / np.maximum(either, 1), 1.0)

    def moved(self, before: "np.ndarray", after: "np.ndarray") -> "np.ndarray":
        return (before != after).any(axis=1).astype(float)

    def groups(self, targets: "np.ndarray", decisions: "np.ndarray", labels: Sequence[str]) -> list[Group]:
        return label_groups(targets > HALF, decisions > HALF, labels)

    def claims(
        self, outputs: "np.ndarray", targets: "np.ndarray", thresholds: "np.ndarray | None" = None
    ) -> Claims | None:
        """Of each row and label whether it is more likely than not, whatever the thresholds: that is what a score
        claims."""
        scores, likely = sigmoid(outputs.astype(float)), outputs > 0
        return Claims((scores * likely + (1 - scores) * ~likely).ravel(), (likely == (targets > HALF)).ravel())

    def told(self, decisions: "np.ndarray", labels: Sequence[str]) -> list[Any]:
        return [[label for label, held in zip(labels, row, strict=True) if held] for row in (decisions > HALF).tolist()]

    def best_scores(self, outputs: "np.ndarray") -> "np.ndarray":
        return sigmoid(outputs.astype(float).max(axis=1))
