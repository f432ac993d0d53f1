"""A linear probe: a linear model on features that a frozen base gives (Alain & Bengio 2016)."""

import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from raylora.tasks import ProblemType
from raylora.tasks.functions import log_softmax

if TYPE_CHECKING:
    import numpy as np

# inverse strengths of the L2 penalty on standardised features, strongest first
GRID = (1e-3, 1e-2, 1e-1)
HELD_OUT = 5  # one row in so many chooses among them
CHOOSING_ROWS = 5000  # at most, of those that it is fitted on to choose
SMALL_DEVIATION = 0.1  # of the root mean square of all features' deviations
MAX_ITERATIONS = 50
STRENGTHS = (1.0, 10.0, 100.0, 1000.0, 10000.0)  # of ridge's penalty on standardised features


@dataclass(frozen=True)
class Probe:
    """logits = features @ weight.T + bias, in the features' own scale.

    weight [C, F] and bias [C] float32; `c` is the chosen inverse strength, `log_loss` its mean cross-entropy, in nats,
    on the rows held out to choose it, and `accuracy` its share of them that it labels rightly; `majority` is that of
    their commonest label. NaN where no label has five rows, and of a probe of another task. `at_mean` [C] are the
    logits of the mean row, of one against the rest: the labels' odds.
    """

    weight: "np.ndarray"
    bias: "np.ndarray"
    c: float
    log_loss: float = float("nan")
    accuracy: float = float("nan")
    majority: float = float("nan")
    at_mean: "np.ndarray | None" = None

    @property
    def skill(self) -> float:
        """Of what the commonest label gets wrong, the share that the probe gets right: 1 where it knows all; NaN where
        all held-out rows carry one label."""
        return (self.accuracy - self.majority) / (1 - self.majority) if self.majority != 1 else float("nan")

    def damped(self, share: float) -> tuple["np.ndarray", "np.ndarray"]:
        """Weight and bias of a probe whose evidence counts for `share`; what it says of the mean row stays, where it
        is told apart (`at_mean`), else that shrinks with it."""
        kept = 0.0 if self.at_mean is None else self.at_mean
        return share * self.weight, kept + share * (self.bias - kept)

    def logits(self, features: "np.ndarray") -> "np.ndarray":
        """[N, C] of features [N, F]."""
        return features @ self.weight.T + self.bias


def fit_probe(
    features: "np.ndarray",
    label_ids: "np.ndarray",
    num_labels: int,
    bias: bool = True,
    weights: "np.ndarray | None" = None,
) -> Probe:
    """Fit on all rows, with the penalty that had the lowest log loss on a fifth of them.

    A label without rows gets zero weights and the lowest of the others' offsets.

    Args:
        features: [N, F]; N >= 2, of at least two labels.
        label_ids: [N] in [0, num_labels); rows in an order that says nothing of their labels.
        bias: False for a layer that has none: the features are then scaled, not centred.
        weights: [C] of a label's rows, in the fit and in what is told of the held-out ones; None = all weigh 1.
    """
    import numpy as np

    scaled, mean, deviation = _standardised(features, bias)
    present, ids = np.unique(label_ids, return_inverse=True)
    weighs = np.ones(len(ids)) if weights is None else weights[label_ids].astype(np.float64)
    held_out, nan = _held_out(ids), float("nan")
    tried = _tried(scaled, ids, held_out, bias, weighs) if held_out.any() else {GRID[0]: (nan, nan)}
    c = min(tried, key=lambda one: tried[one])
    with quiet():
        model = _regression(c, bias).fit(scaled, ids, weighs)
    coefficients, intercepts = _per_label(model)
    weight = np.zeros((num_labels, features.shape[1]))
    weight[present] = coefficients / deviation
    offsets = np.full(num_labels, intercepts.min())
    offsets[present] = intercepts
    offsets -= weight @ mean
    shares = np.bincount(ids[held_out], weighs[held_out])
    majority = float(shares.max() / shares.sum()) if held_out.any() else nan
    return Probe(weight.astype(np.float32), offsets.astype(np.float32), c, *tried[c], majority)


def _standardised(features: "np.ndarray", bias: bool) -> tuple["np.ndarray", "np.ndarray", "np.ndarray"]:
    """[N, F] float32, and the mean and the deviation [F] that were taken out."""
    import numpy as np

    mean = features.mean(axis=0, dtype=np.float64) if bias else np.zeros(features.shape[1])
    deviation = features.std(axis=0, dtype=np.float64)
    # a feature that hardly varies is not blown up: what training moves it by would swamp all others
    deviation = np.maximum(deviation, SMALL_DEVIATION * float(np.sqrt((deviation**2).mean())) + 1e-12)
    return ((features - mean) / deviation).astype(np.float32), mean, deviation


def fit_one_against_rest(
    features: "np.ndarray",
    targets: "np.ndarray",
    num_labels: int,
    bias: bool = True,
    weights: "np.ndarray | None" = None,
) -> Probe:
    """`each_against_rest`, with the penalty that had the lowest log loss on a fifth of the rows.

    Args:
        targets: [N, C] of 0 and 1.
        weights: [C] of a row that carries the label beside one that does not; None = 1.
    """
    import numpy as np

    weighs = np.ones(targets.shape) if weights is None else np.where(targets > 0, weights, 1.0)
    scaled, mean, deviation = _standardised(features, bias)
    held_out = np.arange(len(scaled)) % HELD_OUT == HELD_OUT - 1
    fitted = np.flatnonzero(~held_out)[:CHOOSING_ROWS]
    losses = dict[float, float]()
    for c in GRID if held_out.any() else GRID[:1]:
        weight, offsets = each_against_rest(scaled[fitted], targets[fitted], _regression(c, bias), weighs[fitted])
        shown = held_out if held_out.any() else ~held_out
        logits = scaled[shown] @ weight.T + offsets
        losses[c] = float(((np.logaddexp(0.0, logits) - logits * targets[shown]) * weighs[shown]).mean())
        if losses[c] > min(losses.values()):
            break
    c = min(losses, key=lambda one: losses[one])
    weight, offsets = each_against_rest(scaled, targets, _regression(c, bias), weighs)
    weight = weight / deviation
    centre = offsets.astype(np.float32)
    bias_there = (offsets - weight @ mean).astype(np.float32)
    return Probe(weight.astype(np.float32), bias_there, c, losses[c], at_mean=centre)


def each_against_rest(
    features: Any, targets: "np.ndarray", model: Any, weighs: "np.ndarray | None" = None
) -> tuple["np.ndarray", "np.ndarray"]:
    """Weights [C, F] and offsets [C] of a logistic regression for each label.

    A label that no row carries, or every row, gets zero weights and an offset of its odds.

    Args:
        features: [N, F], dense or sparse.
        targets: [N, C] of 0 and 1.
        model: scikit-learn's, which is fitted anew for each label.
        weighs: [N, C] of each row for each label; None = alike.
    """
    import numpy as np

    rows, held = len(targets), targets.sum(axis=0)
    weight = np.zeros((targets.shape[1], features.shape[1]))
    offsets = np.log((held + 0.5) / (rows - held + 0.5)) if model.fit_intercept else np.zeros(targets.shape[1])
    model.set_params(warm_start=False)
    for label in np.flatnonzero((held > 0) & (held < rows)):
        with quiet():
            model.fit(features, targets[:, label], None if weighs is None else weighs[:, label])
        weight[label] = model.coef_[0]
        offsets[label] = np.broadcast_to(model.intercept_, 1)[0]
    return weight, offsets


def fit_ridge(
    features: "np.ndarray", targets: "np.ndarray", num_labels: int, bias: bool = True, weights: None = None
) -> Probe:
    """Ridge regression, with the penalty that had the lowest error in leave-one-out cross-validation.

    Args:
        targets: [N, M] numbers.
        weights: numbers have none.
    """
    import numpy as np
    from sklearn.linear_model import RidgeCV

    scaled, mean, deviation = _standardised(features, bias)
    model: Any = RidgeCV(STRENGTHS, fit_intercept=bias).fit(scaled.astype(np.float64), targets.astype(np.float64))
    weight = np.atleast_2d(model.coef_) / deviation
    offsets = np.broadcast_to(model.intercept_, len(weight)) - weight @ mean
    return Probe(weight.astype(np.float32), offsets.astype(np.float32), float(np.max(model.alpha_)))


def spread(label_ids: "np.ndarray", count: int) -> "np.ndarray":
    """About `count` places of some rows, in order, or all: of each label its share, and at least one row.

    The first of each label are taken: a run's rows are in the order of their texts' hashes, which is as good as any.
    """
    import numpy as np

    if len(label_ids) <= count:
        return np.arange(len(label_ids))
    order = np.argsort(label_ids, kind="stable")
    ids = label_ids[order]
    rank = np.arange(len(ids)) - np.searchsorted(ids, ids)
    share = count / len(ids)
    return np.sort(order[(rank == 0) | (rank < np.round(share * np.bincount(ids)[ids]))])


def _held_out(ids: "np.ndarray") -> "np.ndarray":
    """[N] bool: every fifth row of each label, never all of one."""
    import numpy as np

    order = np.argsort(ids, kind="stable")
    starts = np.searchsorted(ids[order], ids[order])
    rank = np.empty(len(ids), dtype=np.int64)
    rank[order] = np.arange(len(ids)) - starts
    return rank % HELD_OUT == HELD_OUT - 1


def _tried(
    scaled: "np.ndarray", ids: "np.ndarray", held_out: "np.ndarray", bias: bool, weighs: "np.ndarray"
) -> dict[float, tuple[float, float]]:
    """Loss and accuracy on the held-out rows for each strength, until the loss gets worse."""
    import numpy as np

    tried: dict[float, tuple[float, float]] = {}
    fitted = np.flatnonzero(~held_out)
    fitted = fitted[spread(ids[fitted], CHOOSING_ROWS)]
    model = _regression(GRID[0], bias)
    for c in GRID:
        with quiet():
            model.set_params(C=c).fit(scaled[fitted], ids[fitted], weighs[fitted])
        coefficients, intercepts = _per_label(model)
        logs, truth = log_softmax(scaled[held_out] @ coefficients.T + intercepts), ids[held_out]
        losses, right = -logs[np.arange(len(truth)), truth], logs.argmax(axis=1) == truth
        loss, accuracy = (float(np.average(each, weights=weighs[held_out])) for each in (losses, right))
        tried[c] = loss, accuracy
        if tried[c] > min(tried.values()):
            break
    return tried


@contextmanager
def quiet() -> Generator[None]:
    """Not converging to the last digit is by design: L-BFGS is as deterministic when it is stopped early. So is a label
    that every row carries, or none."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.filterwarnings("ignore", r"Label (not )?\S+ is present in all", UserWarning)
        yield


def _regression(c: float, bias: bool) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=c, fit_intercept=bias, max_iter=MAX_ITERATIONS, tol=1e-4, warm_start=True)


def _per_label(model: Any) -> tuple["np.ndarray", "np.ndarray"]:
    """[C, F] and [C]; of two labels scikit-learn keeps one row, the difference."""
    import numpy as np

    coefficients, intercepts = model.coef_, np.broadcast_to(model.intercept_, len(model.coef_))
    if len(coefficients) == 1:
        return np.concatenate([-coefficients, coefficients]) / 2, np.concatenate([-intercepts, intercepts]) / 2
    return coefficients, intercepts


FITTED: dict[ProblemType, Callable[..., Probe]] = {
    "single_label_classification": fit_probe,
    "multi_label_classification": fit_one_against_rest,
    "regression": fit_ridge,
}
