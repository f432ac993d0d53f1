"""An adapter as scikit-learn's tools want an estimator: `raylora.load(path).as_sklearn()`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin

from raylora.model.tokens import Text

if TYPE_CHECKING:
    from raylora.model.predictor import Predictor


class _Fitted(BaseEstimator):
    """What both kinds share. It is fitted for good, as scikit-learn's `FrozenEstimator`: `fit` trains nothing and
    `clone` gives the estimator itself, so that `cross_val_predict` and `CalibratedClassifierCV` take the adapter as it
    is. It stands beside `Predictor` because their `predict` differ: there a record of label, score and scores, here
    what metrics compare.

    X is a sequence of texts, an array or a frame of one column, and of pairs two columns or a sequence of tuples.
    """

    def __init__(self, predictor: "Predictor") -> None:
        self.predictor = predictor

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: N803 - scikit-learn's names
        """Trains nothing."""
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_clone__(self) -> Self:
        return self

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = tags.input_tags.one_d_array = True
        tags.no_validation = True  # a text is checked by `Predictor`, in its own words
        return tags


class AdapterClassifier(ClassifierMixin, _Fitted):
    """One label a text, or several: then `predict` gives an indicator [N, C], as of a fitted `OneVsRestClassifier`."""

    @property
    def classes_(self) -> np.ndarray:
        return self.predictor.classes_

    def predict_proba(self, X: Any) -> np.ndarray:  # noqa: N803
        """[N, C] in the order of `classes_`."""
        return self.predictor.predict_proba(texts_of(X))

    def predict(self, X: Any) -> np.ndarray:  # noqa: N803
        """[N] labels; of several labels a text [N, C] ints, 1 where a label reaches its threshold."""
        said = self.predictor.predict(texts_of(X))
        if not self._takes_several():
            return np.array([each.label for each in said], dtype=self.classes_.dtype)
        return np.array([[int(label in each.labels) for label in self.classes_] for each in said])

    def _takes_several(self) -> bool:
        predictor = self.predictor
        return predictor.task.decisions(np.zeros((1, len(predictor.labels)))).ndim == 2

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = self._takes_several()
        return tags


class AdapterRegressor(RegressorMixin, _Fitted):
    """Numbers, in their own unit."""

    def predict(self, X: Any) -> np.ndarray:  # noqa: N803
        """[N], or [N, C] of several numbers a text."""
        numbers = self.predictor.logits(texts_of(X)).astype(np.float64)
        return numbers[:, 0] if numbers.shape[1] == 1 else numbers


def texts_of(X: Any) -> Sequence[Text]:  # noqa: N803
    """Texts, or pairs as tuples, of what scikit-learn passes on: lists, arrays and frames."""
    rows = np.asarray(X, dtype=object)
    if rows.ndim == 2 and rows.shape[1] == 1:
        rows = rows[:, 0]
    return rows.tolist() if rows.ndim < 2 else [tuple(row) for row in rows.tolist()]
