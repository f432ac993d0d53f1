"""Logistic regression on features, as weights for a head."""

import numpy as np
import pytest

from raylora.probe import GRID, fit_one_against_rest, fit_probe, fit_ridge, spread


def blobs(labels: int, rows: int, width: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Features around a centre per label, shifted and scaled very differently from one to the next."""
    random = np.random.default_rng(0)
    ids = random.integers(labels, size=rows)
    centres = random.normal(size=(labels, width)) * 3
    features = centres[ids] + random.normal(size=(rows, width))
    return (features * 10.0 ** np.arange(-3, width - 3) + 5).astype(np.float32), ids


@pytest.mark.parametrize("labels", [2, 5])
def test_weights_in_the_features_own_scale_give_the_regressions_probabilities(labels: int) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    random = np.random.default_rng(1)
    ids = np.arange(200) % labels
    features = (random.normal(size=(200, 6)) + ids[:, None] + 7).astype(np.float32)
    probe = fit_probe(features, ids, labels)
    scaled = StandardScaler().fit_transform(features.astype(np.float64))
    own = LogisticRegression(C=probe.c, max_iter=1000, tol=1e-8).fit(scaled, ids).predict_proba(scaled)
    logits = probe.logits(features).astype(np.float64)
    found = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert np.abs(found - own).max() < 2e-3


def test_a_separable_set_is_learned_whatever_the_features_scale() -> None:
    features, ids = blobs(4, 400)
    assert (fit_probe(features, ids, 4).logits(features).argmax(axis=1) == ids).mean() > 0.95


def test_the_penalty_is_the_one_with_the_lowest_held_out_loss() -> None:
    random = np.random.default_rng(0)
    noise = random.normal(size=(600, 100)).astype(np.float32)  # nothing to learn: the strongest penalty loses least
    assert fit_probe(noise, np.arange(600) % 2, 2).c == GRID[0]
    features, ids = blobs(3, 600)
    assert fit_probe(features, ids, 3).c == GRID[-1]


def test_a_label_without_rows_is_never_the_answer_and_one_row_is_enough_for_one() -> None:
    features, ids = blobs(3, 90)
    ids = np.where(ids == 1, 3, ids)
    ids[0] = 4
    probe = fit_probe(features, ids, 5)
    assert probe.weight.shape == (5, features.shape[1])
    assert not probe.weight[1].any()
    assert set(probe.logits(features).argmax(axis=1)) <= {0, 2, 3, 4}


def test_a_layer_without_a_bias_gets_a_probe_without_one() -> None:
    features, ids = blobs(3, 300)
    probe = fit_probe(features - features.mean(axis=0), ids, 3, bias=False)
    assert not probe.bias.any()


def test_a_feature_that_never_varies_stays_out_of_the_way() -> None:
    features, ids = blobs(3, 300)
    probe = fit_probe(np.concatenate([features, np.full((300, 1), 2.0, np.float32)], axis=1), ids, 3)
    assert np.isfinite(probe.weight).all()
    assert np.abs(probe.weight[:, -1]).max() < 1e-3


def test_the_same_rows_give_the_same_weights_to_the_bit() -> None:
    features, ids = blobs(5, 300)
    assert np.array_equal(fit_probe(features, ids, 5).weight, fit_probe(features, ids, 5).weight)


def test_a_sample_keeps_every_labels_share_and_at_least_one_row() -> None:
    ids = np.array([0] * 900 + [1] * 99 + [2])
    np.random.default_rng(0).shuffle(ids)
    places = spread(ids, 100)
    assert np.array_equal(places, np.sort(places))
    assert np.bincount(ids[places]).tolist() == [90, 10, 1]
    assert np.array_equal(spread(ids, 5000), np.arange(1000))


def test_a_probe_whose_held_out_rows_carry_one_label_has_no_skill_to_tell() -> None:
    """Three rows of the other label are too few to hold one out."""
    features = np.random.default_rng(0).normal(size=(43, 4)).astype(np.float32)
    probe = fit_probe(features, np.repeat([0, 1], [40, 3]), 2)
    assert probe.majority == 1
    assert np.isnan(probe.skill)


@pytest.mark.parametrize("bias", [True, False])
def test_one_against_rest_finds_each_label_by_itself(bias: bool) -> None:
    """Two labels that go together or not, one that no row carries, and one that every row does."""
    random = np.random.default_rng(0)
    features = random.normal(size=(400, 6)).astype(np.float32) * 5 + (3 if bias else 0)
    targets = np.zeros((400, 4), np.float32)
    targets[:, :2] = features[:, :2] > (3 if bias else 0)
    targets[:, 3] = 1
    probe = fit_one_against_rest(features, targets, 4, bias)
    assert ((probe.logits(features)[:, :2] > 0) == targets[:, :2]).mean() > 0.95
    assert not probe.weight[2:].any()
    assert (probe.bias.any() and probe.bias[2] < -3 and probe.bias[3] > 3) if bias else not probe.bias.any()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("outputs", [1, 2])
def test_ridge_finds_the_weights_that_numbers_were_made_with(outputs: int, bias: bool) -> None:
    random = np.random.default_rng(0)
    features = (random.normal(size=(300, 5)) * [1, 10, 0.1, 1, 1]).astype(np.float32)
    made = random.normal(size=(5, outputs)) / np.array([[1], [10], [0.1], [1], [1]])
    numbers = features @ made + (7 if bias else 0)
    probe = fit_ridge(features, numbers.astype(np.float32), outputs, bias)
    assert (probe.weight.shape, probe.bias.shape) == ((outputs, 5), (outputs,))
    assert ((probe.logits(features) - numbers) ** 2).mean() < 0.01 * numbers.var()
    assert probe.bias == pytest.approx(7 if bias else 0, abs=0.1)


def test_a_rare_label_is_found_by_a_probe_that_weighs_its_rows() -> None:
    """One row in fifty: its place among the others makes it less likely than the common label everywhere."""
    random = np.random.default_rng(0)
    ids = (np.arange(2000) % 50 == 0).astype(int)
    features = (random.normal(size=(2000, 3)) + ids[:, None]).astype(np.float32)
    weights = np.array([0.5 / 0.98, 0.5 / 0.02], np.float32)
    plain, weighed = (fit_probe(features, ids, 2, True, each) for each in (None, weights))
    recalls = [(probe.logits(features)[ids == 1].argmax(1) == 1).mean() for probe in (plain, weighed)]
    assert recalls[0] < 0.2 and recalls[1] > 0.7
    assert plain.majority == pytest.approx(0.98, abs=0.01) and weighed.majority == pytest.approx(0.5, abs=0.05)
    assert plain.skill < 0.2 < weighed.skill
    several = np.stack([ids, 1 - ids], axis=1).astype(np.float32)
    found = fit_one_against_rest(features, several, 2, True, np.array([49, 1], np.float32))
    assert (found.logits(features)[ids == 1, 0] > 0).mean() > 0.7


def test_a_damped_probe_of_several_labels_keeps_their_odds() -> None:
    """Rare labels would else start as likely ones, and be unlearned first."""
    random = np.random.default_rng(0)
    features = random.normal(3, 1, size=(400, 4)).astype(np.float32)
    targets = (features[:, :1] + random.normal(size=(400, 1)) > [[4.5, 5.5]]).astype(np.float32)
    probe = fit_one_against_rest(features, targets, 2)
    weight, bias = probe.damped(0.3)
    mean = features.mean(axis=0)
    assert features @ weight.T + bias == pytest.approx(
        probe.logits(mean[None]) + 0.3 * (probe.logits(features) - probe.logits(mean[None])), abs=1e-3
    )
    single = fit_probe(features, targets[:, 0].astype(int), 2)
    assert single.damped(0.3)[1] == pytest.approx(0.3 * single.bias)
