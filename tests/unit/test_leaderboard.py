"""The ranking of trials, the Pareto front, and trials.csv."""

import csv
import io
from dataclasses import replace

import pytest

from raylora.leaderboard import Trial, describe, pareto, rank, table, to_csv
from raylora.metrics import Scores


def trial(name: str, score: float | None, size: int = 10, loss: float = 0.5) -> Trial:
    scores = (
        None if score is None else Scores({"accuracy": score, "f1": score, "f1_macro": score - 0.1, "loss": loss}, 100)
    )
    return Trial(name, {"lora.r": 4}, "failed" if score is None else "finished", score, scores, 2, 3, size, 1.5, 9.0, 8)


def names(trials: list[Trial]) -> list[str]:
    return [t.name for t in trials]


def test_the_best_score_is_first_and_trials_without_one_are_last() -> None:
    trials = [trial("none", None), trial("low", 0.7), trial("high", 0.9)]
    assert names(rank(trials, "max")) == ["high", "low", "none"]
    assert names(rank(trials, "min")) == ["low", "high", "none"]


def test_equal_scores_are_told_apart_by_loss_then_size() -> None:
    trials = [trial("sure", 0.8, 20, 0.3), trial("small", 0.8, 10, 0.4), trial("large", 0.8, 20, 0.4)]
    assert names(rank(trials, "max")) == ["sure", "small", "large"]


def test_the_pareto_front_holds_what_nothing_beats_in_both() -> None:
    trials = [
        trial("best", 0.9, 40),
        trial("worse and larger", 0.85, 50),
        trial("middle", 0.8, 20),
        trial("as good and larger", 0.8, 30),
        trial("least", 0.5, 10),
        trial("failed", None, 1),
    ]
    assert names(pareto(trials, "max", "trainable_parameters")) == ["least", "middle", "best"]


def test_trials_csv_has_a_row_per_trial_and_a_column_per_key() -> None:
    failed = Trial("b", {"lora.r": 8, "train.learning_rate": 0.1}, "failed", reason="the loss is nan, lower it")
    ranked = [trial("a", 0.9), failed]
    rows = list(csv.DictReader(io.StringIO(to_csv(ranked, [ranked[0]]))))
    first = {
        "rank": "1",
        "trial": "a",
        "score": "0.9",
        "accuracy": "0.9",
        "f1": "0.9",
        "f1_macro": "0.8",
        "loss": "0.5",
    }
    assert rows[0]["best_epoch"] == "2"
    assert first.items() <= rows[0].items()
    assert {"epochs": "3", "trainable_parameters": "10", "packed": "8", "pareto": "1"}.items() <= rows[0].items()
    assert {"status": "failed", "score": "", "pareto": "0", "train.learning_rate": "0.1"}.items() <= rows[1].items()
    assert rows[1]["reason"] == "the loss is nan, lower it"


def seeded(name: str, r: int, seed: int, score: float | None, size: int = 10) -> Trial:
    return replace(trial(name, score, size), sample={"lora.r": r, "seed": seed})


# r=4: mean 0.8, a spread of 0.1414; r=8: mean 0.85, 0.0141, though its best trial is below the best of r=4
SEEDED = [seeded("a", 4, 42, 0.9), seeded("b", 8, 42, 0.84), seeded("c", 4, 43, 0.7), seeded("d", 8, 43, 0.86)]


def test_samples_are_ranked_by_their_mean_over_the_seeds_then_each_ones_trials() -> None:
    ranked = rank(SEEDED, "max")
    assert names(ranked) == ["d", "b", "a", "c"]
    assert [t.mean_score for t in ranked] == pytest.approx([0.85, 0.85, 0.8, 0.8])
    assert [t.std_score for t in ranked] == pytest.approx([0.02 / 2**0.5] * 2 + [0.2 / 2**0.5] * 2)
    assert names(rank(SEEDED, "min")) == ["c", "a", "b", "d"]


def test_a_samples_mean_is_over_the_trials_that_have_a_score() -> None:
    ranked = rank([*SEEDED, seeded("e", 4, 44, None), seeded("f", 2, 42, 0.87), seeded("g", 2, 43, None)], "max")
    assert names(ranked) == ["f", "g", "d", "b", "a", "c", "e"]
    assert (ranked[1].mean_score, ranked[1].std_score) == (0.87, None), "one score has no spread"
    assert ranked[-1].mean_score == pytest.approx(0.8)
    nothing = rank([*SEEDED, seeded("h", 1, 42, None), seeded("i", 1, 43, None)], "min")
    assert names(nothing)[-2:] == ["h", "i"] and nothing[-1].mean_score is None


def test_samples_of_equal_means_do_not_mix() -> None:
    trials = [seeded("a", 4, 42, 0.9), seeded("b", 8, 42, 0.8), seeded("c", 4, 43, 0.7), seeded("d", 8, 43, 0.8)]
    assert names(rank(trials, "max")) == ["a", "c", "b", "d"]


def test_the_pareto_front_is_of_samples_by_their_means_each_by_its_best_trial() -> None:
    small = [seeded("s", 2, 42, 0.88, 5), seeded("t", 2, 43, 0.6, 5)]
    assert names(pareto([*SEEDED, *small], "max", "trainable_parameters")) == ["s", "d"]


def test_trials_csv_and_the_terminal_show_the_seed_and_its_samples_mean() -> None:
    ranked = rank(SEEDED, "max")
    rows = list(csv.DictReader(io.StringIO(to_csv(ranked, []))))
    assert {"seed": "43", "score": "0.86"}.items() <= rows[0].items()
    assert float(rows[0]["mean_score"]) == pytest.approx(0.85) and float(rows[0]["std_score"]) > 0
    assert "mean_score" not in to_csv(rank([trial("a", 0.9)], "max"), [])
    lines = table(ranked, "accuracy")
    assert "mean" in lines[0] and "0.8600" in lines[1] and "0.8500 ± 0.0141" in lines[1] and "seed=43" in lines[1]
    assert "mean" not in table([trial("a", 0.9)], "accuracy")[0]
    failed = table(rank([replace(seeded("e", 4, 42, None), reason="no memory")], "max"), "accuracy")
    assert failed[2].index("no memory") == failed[0].index("status")


def test_the_terminal_shows_the_first_trials_and_why_others_failed() -> None:
    lines = table([trial("a", 0.9), Trial("b", {}, "failed", reason="no memory")], "accuracy")
    assert "0.9000" in lines[1] and "2/3" in lines[1] and "r=4" in lines[1]
    assert "no memory" in lines[3]
    assert table([trial(str(i), 0.5) for i in range(12)], "accuracy")[-1] == "and 2 more, in trials.csv"


def test_a_sample_is_told_in_a_few_words() -> None:
    sample = {"lora.r": 8, "train.learning_rate": 0.00123456, "lora.target_modules": ["query", "value"]}
    assert describe(sample) == "r=8 learning_rate=0.00123 target_modules=query,value"
