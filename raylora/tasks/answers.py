"""What a caller is answered: labels or numbers of a text, by the adapter's own rules or as the caller wishes."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from raylora.errors import ConfigError
from raylora.tasks.functions import FUNCTIONS, Function

if TYPE_CHECKING:
    import numpy as np

ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]

Kind = Literal["text", "number", "texts"]  # of a column of answers

HALF = 0.5
OF_ONE_TASK: dict[str, ProblemType] = {
    "threshold": "multi_label_classification",
    "min_accuracy": "single_label_classification",
}


@dataclass(frozen=True)
class LabelScore:
    """One entry of a list of answers; without a label where the adapter abstains."""

    label: str | None
    score: float


@dataclass(frozen=True)
class Prediction:
    """What an adapter says of one text.

    Args:
        label: of a single label: that one, or None below `min_accuracy`. Of several: the best of those decided, or None
            where none is. Of numbers: the name of the first.
        score: of `label`, and where that is None the highest; of numbers: the first, in its own unit.
        scores: by label, best first. Of a single label they are probabilities that sum to 1, of several each its own
            probability; numbers stand in the order of their names.
        labels: all that are decided, best first; the names of all numbers.
    """

    label: str | None
    score: float
    scores: dict[str, float]
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Learned:
    """What an adapter knows of its answers, as its manifest holds it: labels in id order, the score from which on each
    is said, and by accuracy ("0.95") what `calibration.MinScore` tells."""

    labels: tuple[str, ...]
    thresholds: Mapping[str, float] | None = None
    min_scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict[str, Mapping[str, float]])

    def threshold_of_each(self) -> "np.ndarray | None":
        """[C] in the order of labels; None = one half."""
        import numpy as np

        own = self.thresholds
        return None if own is None else np.array([own.get(label, HALF) for label in self.labels])


@dataclass(frozen=True)
class Wish:
    """What a caller wants otherwise than the adapter has it; None = as the adapter has it.

    Args:
        function: of the scores that are told; what is decided stays as it is.
        top_k: entries of a list of answers, the best, decided or not.
        threshold: of all labels, in place of each its own.
        min_accuracy: how often answers are to be right; where the score does not promise it, there is no label.
    """

    function: Function | None = None
    top_k: int | None = None
    threshold: float | None = None
    min_accuracy: float | None = None


AS_IT_IS = Wish()


class Answers(ABC):
    """The part of a task that callers see.

    Attributes:
        function: what a caller's scores are of logits.
    """

    problem_type: ClassVar[ProblemType]
    function: ClassVar[Function]

    def scores(self, outputs: "np.ndarray", function: Function | None = None) -> "np.ndarray":
        """[N, C] float64, as a caller sees them; by the task's own function unless another is named."""
        import numpy as np

        return FUNCTIONS[function or self.function](outputs.astype(np.float64))

    def check(self, wish: Wish, learned: Learned) -> None:
        """Raises:
        ConfigError: the wish is no share, of another task, or more than the adapter promises; says what there is.
        """
        if not _is_share(wish.threshold):
            raise ConfigError(f"`threshold` must be a number from 0 to 1, found {wish.threshold!r}.")
        if not _is_share(wish.min_accuracy) or wish.min_accuracy in (0, 1):
            raise ConfigError(f"`min_accuracy` must be a number between 0 and 1, found {wish.min_accuracy!r}.")
        for name, problem_type in OF_ONE_TASK.items():
            if getattr(wish, name) is not None and problem_type != self.problem_type:
                raise ConfigError(f"`{name}` is of {problem_type}, and this adapter's task is {self.problem_type}.")

    @abstractmethod
    def answers(self, outputs: "np.ndarray", learned: Learned, wish: Wish = AS_IT_IS) -> list[Prediction]:
        """Of outputs [N, C], one each; the earlier label first among equals. The wish has been checked."""

    def listed(self, prediction: Prediction, wish: Wish = AS_IT_IS) -> list[LabelScore]:
        """A prediction in the Hugging Face Inference shape."""
        return [LabelScore(label, score) for label, score in prediction.scores.items()][: wish.top_k]

    def in_text(self, prediction: Prediction) -> str:
        """What is decided, as one text; empty where that is nothing."""
        return prediction.label or ""

    @abstractmethod
    def columns(self, prediction: Prediction) -> list[str]:
        """A prediction for a terminal."""

    def fields(self, labels: Sequence[str], all_scores: bool) -> dict[str, Kind]:
        """The columns that predictions take in a table.

        Args:
            all_scores: whether those of every label are among them.
        """
        each: dict[str, Kind] = {f"score_{label}": "number" for label in labels} if all_scores else {}
        return {"label": "text", "score": "number", **each}

    def cells(self, prediction: Prediction, labels: Sequence[str], all_scores: bool) -> list[Any]:
        """What a prediction is in the columns of `fields`."""
        each = [prediction.scores[label] for label in labels] if all_scores else []
        return [prediction.label, prediction.score, *each]

    def counted(self, prediction: Prediction) -> tuple[str | None, ...]:
        """The labels that a summary counts a text for; None of one that gets none."""
        return prediction.labels or (None,)

    @abstractmethod
    def changed(self, before: "np.ndarray", after: "np.ndarray", thresholds: "np.ndarray | None") -> str:
        """How many answers differ between two outputs [N, C] of the same rows, or by how much, in words."""


def _is_share(given: object) -> bool:
    """Of a program's value: it may be anything."""
    if isinstance(given, bool) or not isinstance(given, Real):
        return given is None
    return 0 <= float(given) <= 1


def ranked(labels: Sequence[str], scores: "np.ndarray", outputs: "np.ndarray") -> list[dict[str, float]]:
    """Of each row the scores by label, the highest output first."""
    import numpy as np

    order: list[list[int]] = np.argsort(-outputs, axis=1, kind="stable").tolist()
    return [{labels[i]: row[i] for i in places} for row, places in zip(scores.tolist(), order, strict=True)]
