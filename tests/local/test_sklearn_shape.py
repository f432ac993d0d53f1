"""An adapter in scikit-learn's places for a fitted estimator: scorers, calibration, cross-validation, importance."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.calibration import CalibratedClassifierCV, calibration_curve
from sklearn.inspection import permutation_importance
from sklearn.metrics import accuracy_score, f1_score, get_scorer, log_loss, roc_auc_score
from sklearn.model_selection import cross_val_predict
from sklearn.utils import estimator_checks as checks
from sklearn.utils.validation import check_is_fitted
from tiny import make_adapter

import raylora
from raylora.errors import ConfigError, DataError
from raylora.model.predictor import Predictor

TEXTS = [f"{what} {how} {i}" for i in range(4) for what in ("works", "broke", "late") for how in ("well", "today")]
Make = Callable[..., Predictor]


@pytest.fixture
def adapter(bases: Callable[[str], Path], tmp_path: Path) -> Make:
    def make(labels: tuple[str, ...], **facts: Any) -> Predictor:
        return raylora.load(make_adapter(bases("bert"), tmp_path / "adapter", labels, facts=facts))

    return make


def test_probabilities_stand_in_the_order_of_classes(adapter: Make) -> None:
    predictor = adapter(("positive", "mixed", "negative"))
    proba = predictor.predict_proba(TEXTS)
    assert predictor.classes_.tolist() == ["mixed", "negative", "positive"]
    assert proba.shape == (len(TEXTS), 3) and np.allclose(proba.sum(axis=1), 1)
    for row, said in zip(proba, predictor.predict(TEXTS), strict=True):
        assert dict(zip(predictor.classes_, row, strict=True)) == pytest.approx(said.scores, abs=1e-6)


def test_scorers_give_what_the_metrics_give(adapter: Make) -> None:
    predictor = adapter(("positive", "negative"))
    model = predictor.as_sklearn()
    y = np.array(["negative", "positive"] * (len(TEXTS) // 2))
    said = [each.label for each in predictor.predict(TEXTS)]
    proba = predictor.predict_proba(TEXTS)
    assert get_scorer("accuracy")(model, TEXTS, y) == accuracy_score(y, said) == model.score(TEXTS, y)
    assert get_scorer("roc_auc")(model, TEXTS, y) == pytest.approx(roc_auc_score(y == "positive", proba[:, 1]))
    assert get_scorer("neg_log_loss")(model, TEXTS, y) == pytest.approx(-log_loss(y, proba))
    assert get_scorer("f1_macro")(model, TEXTS, y) == pytest.approx(f1_score(y, said, average="macro"))
    shares, means = calibration_curve(y == "positive", model.predict_proba(TEXTS)[:, 1], n_bins=2)
    assert len(shares) == len(means) >= 1


def test_it_takes_part_in_cross_validation_and_calibration_as_it_is(adapter: Make) -> None:
    predictor = adapter(("negative", "positive"))
    model, y = predictor.as_sklearn(), np.array(["negative", "positive"] * (len(TEXTS) // 2))
    assert clone(model) is model
    found = cross_val_predict(model, TEXTS, y, cv=2, method="predict_proba")
    assert np.allclose(found, predictor.predict_proba(TEXTS), atol=1e-6)
    calibrated = CalibratedClassifierCV(model, cv=2).fit(TEXTS, y)
    assert calibrated.predict_proba(TEXTS).shape == (len(TEXTS), 2)


@pytest.mark.parametrize("form", [np.array, pd.Series, lambda texts: pd.DataFrame({"text": texts}), tuple])
def test_texts_come_in_any_form(adapter: Make, form: Callable[[list[str]], Any]) -> None:
    model = adapter(("negative", "positive")).as_sklearn()
    assert model.predict(form(TEXTS)).tolist() == model.predict(TEXTS).tolist()


def test_each_column_of_pairs_has_its_importance(adapter: Make) -> None:
    model = adapter(("no", "yes"), is_pair=True).as_sklearn()
    pairs = np.array([[one, other] for one, other in zip(TEXTS, reversed(TEXTS), strict=True)], dtype=object)
    y = model.predict(pairs)
    assert model.predict([tuple(pair) for pair in pairs]).tolist() == y.tolist()
    found = permutation_importance(model, pairs, y, n_repeats=2, random_state=0)
    assert found.importances_mean.shape == (2,)


def test_several_labels_are_an_indicator_by_their_own_thresholds(adapter: Make) -> None:
    facts = {"problem_type": "multi_label_classification", "thresholds": {"late": 0.2, "broken": 0.9, "good": 0.5}}
    predictor = adapter(("late", "broken", "good"), **facts)
    model = predictor.as_sklearn()
    proba = predictor.predict_proba(TEXTS)
    assert predictor.classes_.tolist() == ["broken", "good", "late"]
    assert (model.predict(TEXTS) == (proba >= [0.9, 0.5, 0.2])).all()
    y = np.tile([[1, 0, 1], [0, 1, 0]], (len(TEXTS) // 2, 1))
    assert get_scorer("f1_micro")(model, TEXTS, y) == pytest.approx(f1_score(y, model.predict(TEXTS), average="micro"))
    assert model.__sklearn_tags__().classifier_tags.multi_label


def test_numbers_are_a_regressor_without_probabilities(adapter: Make) -> None:
    predictor = adapter(("stars",), problem_type="regression")
    model: Any = predictor.as_sklearn()
    assert is_regressor(model) and not hasattr(model, "predict_proba")
    assert model.predict(TEXTS) == pytest.approx([each.score for each in predictor.predict(TEXTS)], abs=1e-5)
    assert get_scorer("neg_mean_absolute_error")(model, TEXTS, np.zeros(len(TEXTS))) < 0
    with pytest.raises(ConfigError, match="no probabilities"):
        predictor.predict_proba(TEXTS)


def test_a_bad_text_is_told_in_raylora_s_own_words(adapter: Make) -> None:
    model = adapter(("negative", "positive")).as_sklearn()
    with pytest.raises(DataError, match="text 1 must be a string"):
        model.predict(["good", 3])
    with pytest.raises(DataError, match="Put it in a list"):
        model.predict("good")


APPLICABLE = [  # of check_estimator: those that bring no numbers to fit on
    checks.check_estimator_cloneable,
    checks.check_estimator_tags_renamed,
    checks.check_valid_tag_types,
    checks.check_estimator_repr,
    checks.check_get_params_invariance,
    checks.check_set_params,
    checks.check_no_attributes_set_in_init,
]


def test_what_of_check_estimator_applies_to_texts_holds(adapter: Make) -> None:
    model = adapter(("negative", "positive")).as_sklearn()
    check_is_fitted(model)
    assert is_classifier(model) and model.fit(TEXTS) is model
    for check in APPLICABLE:
        check("AdapterClassifier", model)
