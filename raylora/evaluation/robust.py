"""What becomes of answers when texts are altered."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from raylora.evaluation.alter import ALTERATIONS, altered
from raylora.evaluation.answered import Answered, estimate
from raylora.evaluation.record import Robustness
from raylora.evaluation.traits import Text

if TYPE_CHECKING:
    import numpy as np


def robustness(
    answered: Answered, texts: Sequence[Text], logits: "Callable[[list[Text], str], np.ndarray]"
) -> tuple[Robustness, ...]:
    """Args:
    logits: [M, C] of M texts, which are altered in the way that it is told.
    """
    return tuple(_robust(answered, texts, kind, logits) for kind in ALTERATIONS)


def _robust(
    answered: Answered, texts: Sequence[Text], kind: str, logits: "Callable[[list[Text], str], np.ndarray]"
) -> Robustness:
    import numpy as np

    others = altered(texts, kind)
    changed = np.flatnonzero([a != b for a, b in zip(texts, others, strict=True)])
    outputs = answered.outputs.copy()
    if len(changed):
        outputs[changed] = logits([others[i] for i in changed], kind)
    moved = answered.exam.moved(answered.decisions, answered.decide(outputs))
    return Robustness(kind, len(changed), estimate(moved), answered.score(outputs))
