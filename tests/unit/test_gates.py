"""What `--fail-under` and `--fail-over` refuse."""

import pickle

import numpy as np
import pytest

from raylora.errors import ConfigError, GateError
from raylora.evaluation.answered import Answered
from raylora.evaluation.gates import Gate, check_gates, check_known, read_gate
from raylora.evaluation.measure import measure
from raylora.tasks import TASKS, Learned

OUTPUTS, TARGETS = np.array([[1.0, 0.0]] * 4), np.array([0, 0, 0, 1])
FOUND = measure(
    Answered("runs/first", TASKS["single_label_classification"], Learned(("a", "b")), OUTPUTS, TARGETS), ["x"] * 4, {}
)


def test_a_gate_that_is_met_says_nothing_even_at_its_limit() -> None:
    check_gates([read_gate("accuracy=0.75", "under"), read_gate("loss=0.6", "over")], [FOUND])


def test_a_gate_that_is_not_met_is_named_with_what_was_found() -> None:
    gates = [read_gate("accuracy=0.76", "under"), read_gate("accuracy=0.7", "under"), read_gate("loss=0.5", "over")]
    with pytest.raises(GateError) as error:
        check_gates(gates, [FOUND])
    assert str(error.value) == (
        "2 gates not met:\n"
        "  runs/first: accuracy is 0.7500, --fail-under accuracy=0.76 asks for at least 0.76\n"
        "  runs/first: loss is 0.5633, --fail-over loss=0.5 asks for at most 0.5"
    )
    assert str(pickle.loads(pickle.dumps(error.value))) == str(error.value)


@pytest.mark.parametrize(
    ("word", "side", "message"),
    [
        ("f1", "under", "takes METRIC=NUMBER"),
        ("f1=much", "under", "takes METRIC=NUMBER"),
        ("acuracy=1", "under", "did you mean 'accuracy'"),
        ("loss=1", "under", "`loss` is better the lower it is: write --fail-over loss=1."),
        ("f1=1", "over", "`f1` is better the higher it is: write --fail-under f1=1."),
    ],
)
def test_a_gate_that_cannot_be_says_how_to_write_it(word: str, side: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_gate(word, side)  # type: ignore[arg-type]


def test_a_metric_of_another_task_is_refused() -> None:
    with pytest.raises(ConfigError, match="`mse` is not known of single_label"):
        check_known([Gate("over", "mse", 1)], TASKS["single_label_classification"].metrics, "single_label")


def test_a_value_that_is_no_number_passes_no_gate() -> None:
    assert not read_gate("f1=0", "under").holds(float("nan")) and not read_gate("mse=1", "over").holds(float("nan"))
