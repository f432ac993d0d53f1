"""The ranking of trials, the Pareto front, and trials.csv."""

import csv
import io

from raylora.leaderboard import Trial, describe, pareto, rank, table, to_csv
from raylora.metrics import Scores


def trial(name: str, score: float | None, size: int = 10, loss: float = 0.5) -> Trial:
    scores = None if score is None else Scores(score, score, score - 0.1, loss, 100)
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


def test_the_terminal_shows_the_first_trials_and_why_others_failed() -> None:
    lines = table([trial("a", 0.9), Trial("b", {}, "failed", reason="no memory")], "accuracy")
    assert "0.9000" in lines[1] and "2/3" in lines[1] and "r=4" in lines[1]
    assert "no memory" in lines[3]
    assert table([trial(str(i), 0.5) for i in range(12)], "accuracy")[-1] == "and 2 more, in trials.csv"


def test_a_sample_is_told_in_a_few_words() -> None:
    sample = {"lora.r": 8, "train.learning_rate": 0.00123456, "lora.target_modules": ["query", "value"]}
    assert describe(sample) == "r=8 learning_rate=0.00123 target_modules=query,value"
