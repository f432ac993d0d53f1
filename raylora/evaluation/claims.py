"""What scores are worth: reliability, and accuracy where only the surest rows are answered."""

from typing import TYPE_CHECKING

from raylora.evaluation.answered import Answered
from raylora.evaluation.record import Bin, Calibration, Coverage, Promise
from raylora.tasks.ranking import BINS, expected_calibration_error

if TYPE_CHECKING:
    import numpy as np

SHARES = tuple(round(share / 20, 2) for share in range(20, 0, -1))


def calibration(answered: Answered) -> Calibration | None:
    import numpy as np

    claims = answered.exam.claims(answered.outputs, answered.targets, answered.thresholds)
    if claims is None:
        return None
    place = np.minimum((claims.claimed * BINS).astype(int), BINS - 1)
    bins = tuple(
        Bin(
            low=i / BINS,
            high=(i + 1) / BINS,
            rows=int((place == i).sum()),
            claimed=float(claims.claimed[place == i].mean()),
            right=float(claims.right[place == i].mean()),
        )
        for i in np.unique(place).tolist()
    )
    return Calibration(expected_calibration_error(claims.claimed, claims.right), bins)


def coverage(answered: Answered) -> tuple[Coverage, ...]:
    """From all rows down to the surest twentieth; rows of one score are answered together."""
    import numpy as np

    certainty = answered.exam.certainty(answered.outputs)
    if certainty is None:
        return ()
    order = np.argsort(-certainty, kind="stable")
    scores, right = certainty[order], np.cumsum(answered.merits[order])
    points: list[Coverage] = []
    for share in SHARES:
        least = scores[max(int(np.ceil(share * len(scores))) - 1, 0)]
        rows = int((scores >= least).sum())
        points.append(Coverage(rows / len(scores), rows, float(least), float(right[rows - 1] / rows)))
    return tuple(dict.fromkeys(points))


def promises(answered: Answered) -> tuple[Promise, ...]:
    """What the manifest promises of scores, beside what these rows say."""
    certainty = answered.exam.certainty(answered.outputs)
    if certainty is None:
        return ()
    return tuple(
        _promise(float(accuracy), known["score"], answered.merits[certainty >= known["score"]], len(certainty))
        for accuracy, known in answered.learned.min_scores.items()
    )


def _promise(accuracy: float, score: float, merits: "np.ndarray", rows: int) -> Promise:
    right = float(merits.mean()) if len(merits) else float("nan")
    return Promise(accuracy, score, len(merits), len(merits) / rows, right)
