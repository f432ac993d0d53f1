"""The search space: what can never be is refused at once, what is drawn is drawn the same again."""

from typing import Any

import numpy as np
import pytest

from raylora.config import Job
from raylora.config.space import Domain, draw_samples, from_plain, parse_space, to_plain, trial_job
from raylora.errors import ConfigError
from raylora.model.packing import pack_key


def job(space: dict[str, Any], **tune: Any) -> Job:
    return Job().replace({"tune.space": space} | {f"tune.{key}": value for key, value in tune.items()})


def test_the_default_space_can_be() -> None:
    assert set(parse_space(Job())) == {"lora.r", "lora.lora_alpha_ratio", "train.learning_rate"}


def test_nested_sections_and_dotted_keys_are_one() -> None:
    nested = {"lora": {"r": {"choice": [4, 8]}}, "train": {"learning_rate": {"loguniform": [1e-4, 1e-2]}}}
    dotted = {"lora.r": {"choice": [4, 8]}, "train.learning_rate": {"loguniform": [1e-4, 1e-2]}}
    assert parse_space(job(nested)) == parse_space(job(dotted))
    assert Job().replace({"tune.space.lora.r": {"choice": [2]}}).tune.space["lora.r"] == {"choice": [2]}


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"lora.rr": {"choice": [1]}}, "lora.rr: unknown key"),
        ({"lora.r": {"choice": []}}, "lora.r: choice takes a list"),
        ({"lora.r": {"choice": [8, 0]}}, "lora.r: must be greater than or equal to 1, found 0"),
        ({"lora.r": {"uniform": [4, 16]}}, "choice or randint give whole numbers"),
        ({"lora.r": {"randint": [8, 4]}}, "randint takes [low, high] with low < high, found [8, 4]"),
        ({"lora.r": {"randint": [0, 4]}}, "must be greater than or equal to 1, found 0"),
        ({"train.learning_rate": {"loguniform": [0, 1]}}, "loguniform needs low > 0, found 0"),
        ({"train.learning_rate": {"quniform": [0.1, 1]}}, "quniform takes [low, high, step]"),
        ({"lora.lora_dropout": {"uniform": [0.1, 1.5]}}, "must be less than 1, found 1.5"),
        ({"data.max_length": {"choice": [64]}}, "is the sweep's, not a trial's"),
        ({"seed": {"choice": [1, 2]}}, "seed: is the sweep's; to train each sample with several seeds, set tune.seeds"),
        ({"data.seed": {"choice": [1, 2]}}, "is the sweep's, not a trial's"),
        ({"lora.lora_alpha_ratio": {"choice": [0]}}, "a ratio must be a number above 0, found 0"),
        ({"lora.lora_alpha_ratio": {"choice": [1]}, "lora.lora_alpha": {"choice": [8]}}, "keep one of them"),
        ({}, "no key to search"),
    ],
)
def test_a_space_that_can_never_be_is_refused(space: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_space(job(space))
    assert message in str(caught.value)
    assert "tune.space" in str(caught.value)


def test_every_fault_is_named_at_once() -> None:
    with pytest.raises(ConfigError, match=r"^2 faults in the search space:\n  tune\.space\.lora\.rr.*\n.*lora\.r: "):
        parse_space(job({"lora.rr": 3, "lora.r": {"choice": [0]}}))


def test_pbt_changes_only_what_can_change_during_a_trial() -> None:
    with pytest.raises(ConfigError, match=r"tune\.space\.lora\.r: cannot change during a trial"):
        parse_space(job({"lora.r": {"choice": [4, 8]}}, scheduler="pbt"))
    fine = {"train.learning_rate": {"loguniform": [1e-4, 1e-2]}, "lora.r": 4}
    assert parse_space(job(fine, scheduler="pbt"))["lora.r"] == Domain("fixed", (4,))


def test_samples_are_the_seeds_and_a_longer_search_begins_with_the_shorter() -> None:
    space = {"lora.r": {"choice": [4, 8]}, "train.learning_rate": {"loguniform": [1e-4, 1e-2]}}
    few, many = (draw_samples(j, parse_space(j)) for j in (job(space, num_samples=3), job(space, num_samples=9)))
    assert few == many[:3]
    other = job(space, num_samples=9).replace({"seed": 7})
    assert draw_samples(other, parse_space(other)) != many


def test_a_grid_is_run_whole_and_the_rest_drawn_for_each_point() -> None:
    rates = {"uniform": [0.0, 0.1]}
    space = {"lora.r": {"grid": [4, 8]}, "lora.lora_dropout": {"grid": [0.0, 0.1]}, "train.weight_decay": rates}
    samples = draw_samples(j := job(space, num_samples=2), parse_space(j))
    points = [(s["lora.r"], s["lora.lora_dropout"]) for s in samples]
    assert points == [(4, 0.0), (4, 0.1), (8, 0.0), (8, 0.1)] * 2
    assert len({s["train.weight_decay"] for s in samples}) == 8


def test_a_grid_search_runs_every_choice() -> None:
    j = job({"lora.r": {"choice": [4, 8, 16]}}, num_samples=1, search_alg="grid")
    assert [s["lora.r"] for s in draw_samples(j, parse_space(j))] == [4, 8, 16]


@pytest.mark.parametrize(
    ("domain", "low", "high"),
    [
        (Domain("uniform", (0.2, 0.5)), 0.2, 0.5),
        (Domain("loguniform", (1e-4, 1e-2)), 1e-4, 1e-2),
        (Domain("randint", (2, 5)), 2, 4),
        (Domain("quniform", (0.0, 1.0, 0.25)), 0.0, 1.0),
    ],
)
def test_draws_reach_both_ends_and_stay_between(domain: Domain, low: float, high: float) -> None:
    random = np.random.default_rng(0)
    drawn = [domain.draw(random) for _ in range(2000)]
    assert low <= min(drawn) <= max(drawn) <= high
    assert min(drawn) == pytest.approx(low, abs=0.02)
    assert max(drawn) == pytest.approx(high, abs=0.02)
    if domain.kind == "quniform":
        assert set(drawn) == {0.0, 0.25, 0.5, 0.75, 1.0}
    if domain.kind == "loguniform":
        assert np.median(drawn) == pytest.approx(1e-3, rel=0.2)


def test_lists_reach_the_searchers_as_json_and_come_back() -> None:
    sample = {"lora.target_modules": ["query", "value"], "lora.layers_to_transform": [4, 5], "lora.bias": "none"}
    plain = {key: to_plain(value) for key, value in sample.items()}
    assert plain["lora.target_modules"] == '["query", "value"]'
    assert from_plain(plain) == sample


def test_alpha_as_a_ratio_follows_the_rank() -> None:
    assert trial_job(Job(), {"lora.r": 4, "lora.lora_alpha_ratio": 2}).lora.lora_alpha == 8
    assert trial_job(Job(), {"lora.lora_alpha_ratio": 0.5}).lora.lora_alpha == 4
    assert trial_job(Job(), {"lora.r": 1, "lora.lora_alpha_ratio": 0.1}).lora.lora_alpha == 1


def test_the_sweeps_metric_chooses_each_trials_epoch() -> None:
    assert trial_job(Job().replace({"tune.metric": "loss"}), {}).train.metric_for_best_model == "loss"
    both = Job().replace({"tune.metric": ["f1", "trainable_parameters"], "tune.scheduler": "none"})
    assert trial_job(both, {}).train.metric_for_best_model == "f1"
    assert trial_job(Job(), {}).metric == "accuracy"


def test_hyperband_needs_an_end_and_two_objectives_no_scheduler() -> None:
    with pytest.raises(ConfigError, match="`scheduler: hyperband` needs `time_budget_s`"):
        Job().replace({"tune.scheduler": "hyperband"})
    assert Job().replace({"tune.scheduler": "hyperband", "tune.time_budget_s": 60}).tune.scheduler == "hyperband"
    with pytest.raises(ConfigError, match="two objectives need `scheduler: none`"):
        Job().replace({"tune.metric": ["accuracy", "trainable_parameters"]})


def test_equal_samples_are_drawn_once() -> None:
    space = {"lora.r": {"choice": [4, 8]}, "train.optim": {"choice": ["sgd", "adamw_torch"]}}
    few, many = job(space, num_samples=3), job(space, num_samples=50)
    assert len(draw_samples(few, parse_space(few))) == 3
    assert len(draw_samples(many, parse_space(many))) == 4, "the space holds no more"
    whole = job(space, num_samples=5, search_alg="grid")
    assert len(draw_samples(whole, parse_space(whole))) == 4, "a grid is not run five times over"


def test_samples_that_come_to_the_same_trial_are_drawn_once() -> None:
    space = {"lora.r": {"grid": [1, 2]}, "lora.lora_alpha_ratio": {"grid": [0.1, 0.5, 1]}}
    samples = draw_samples(j := job(space), parse_space(j))
    assert [tuple(sample.values()) for sample in samples] == [(1, 0.1), (2, 0.1), (2, 1)], "alpha: 1, 1, 2"


@pytest.mark.parametrize("key", ["model.pooling", "model.revision", "train.floor"])
def test_what_all_trials_share_is_the_sweeps(key: str) -> None:
    with pytest.raises(ConfigError, match=r"is the sweep's, not a trial's"):
        parse_space(job({key: {"choice": ["cls", "mean"]}}))


def test_each_sample_is_trained_with_every_seed_one_seed_after_the_other() -> None:
    space = {"lora.r": {"choice": [4, 8]}, "train.learning_rate": {"loguniform": [1e-4, 1e-2]}}
    once, thrice = job(space, num_samples=2), job(space, num_samples=2, seeds=3)
    samples = draw_samples(once, parse_space(once))
    assert draw_samples(thrice, parse_space(thrice)) == [
        {**sample, "seed": seed} for seed in (42, 43, 44) for sample in samples
    ]


def test_a_trial_of_another_seed_learns_from_the_sweeps_rows() -> None:
    trial = trial_job(Job(), {"lora.r": 4, "seed": 43})
    assert (trial.seed, trial.data.seed, trial.split_seed) == (43, 42, 42)
    split = Job().replace({"data.seed": 7})
    assert trial_job(split, {"seed": 43}).split_seed == trial_job(split, {}).split_seed == 7
    assert trial_job(Job(), {"lora.r": 4}).data.seed is None, "as it was without `tune.seeds`"


def test_seeds_stay_below_the_bound_of_a_seed() -> None:
    last = job({"lora.r": {"choice": [4]}}, seeds=2).replace({"seed": 2**32 - 2})
    assert parse_space(last)
    with pytest.raises(ConfigError, match=r"tune\.seeds: the last seed would be 4294967296, .* below 4294967296"):
        parse_space(last.replace({"tune.seeds": 3}))


@pytest.mark.parametrize("changes", [{"search_alg": "optuna"}, {"search_alg": "bayesian"}, {"scheduler": "pbt"}])
def test_seeds_need_trials_that_do_not_learn_from_each_other(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="`seeds` above 1 needs `search_alg` random or grid, and a scheduler other"):
        job({"train.learning_rate": {"loguniform": [1e-4, 1e-2]}}, seeds=2, **changes)
    assert job({"train.learning_rate": {"loguniform": [1e-4, 1e-2]}}, seeds=1, **changes).tune.seeds == 1


def test_trials_of_different_seeds_share_no_pack() -> None:
    first, again, other = (trial_job(Job(), {"lora.r": r, "seed": seed}) for r, seed in ((4, 42), (8, 42), (4, 43)))
    assert pack_key(first) == pack_key(again) != pack_key(other)
