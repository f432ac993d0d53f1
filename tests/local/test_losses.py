"""The loss of a row: PyTorch's own where nothing is asked, weighed, smoothed, focal, of standardised numbers."""

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch.nn import functional

from raylora.config import Job
from raylora.errors import ConfigError
from raylora.model.fit.splits import Splits
from raylora.model.losses import GAMMA, RowLoss, class_weights, row_loss
from raylora.model.tokens import TokenizerSpec, TokenTable
from raylora.tasks import TASKS, ProblemType, Units
from raylora.tasks.task import MOST_WEIGHT

SINGLE: ProblemType = "single_label_classification"
MULTI: ProblemType = "multi_label_classification"
NUMBERS: ProblemType = "regression"


def splits_of(kind: ProblemType, targets: Any, labels: tuple[str, ...]) -> Splits:
    """Rows of one token each."""
    targets = np.asarray(targets).astype(np.int64 if kind == SINGLE else np.float32)
    count = len(targets)
    tokens = pa.table({"input_ids": pa.array([[1]] * count, pa.list_(pa.int32()))})
    table = TokenTable([tokens], np.arange(count), targets, np.ones(count, dtype=np.int32))
    spec = TokenizerSpec("", 0, False, False)
    return Splits(table, table, None, labels, spec, {}, task=TASKS[kind])


def loss_of(
    kind: ProblemType, targets: Any, labels: tuple[str, ...], units: Units | None = None, **train: Any
) -> RowLoss:
    job = Job().replace({"data.problem_type": kind, **{f"train.{key}": value for key, value in train.items()}})
    ones = Units(np.ones(len(labels)), np.zeros(len(labels)))
    return row_loss(job, splits_of(kind, targets, labels), units or ones)


LOGITS = torch.randn(8, 3, generator=torch.Generator().manual_seed(0)) * 3
IDS = torch.arange(8) % 3
SEVERAL = (torch.randn(8, 3, generator=torch.Generator().manual_seed(1)) > 0).float()
ABC = ("a", "b", "c")


def test_plain_losses_are_torchs() -> None:
    torch.testing.assert_close(
        loss_of(SINGLE, IDS, ABC)(LOGITS, IDS), functional.cross_entropy(LOGITS, IDS, reduction="none")
    )
    expected = functional.binary_cross_entropy_with_logits(LOGITS, SEVERAL, reduction="none").mean(1)
    torch.testing.assert_close(loss_of(MULTI, SEVERAL, ABC)(LOGITS, SEVERAL), expected)
    numbers = LOGITS.flip(0)
    torch.testing.assert_close(loss_of(NUMBERS, numbers, ABC)(LOGITS, numbers), (LOGITS - numbers).square().mean(1))


@pytest.mark.parametrize(
    ("kind", "targets", "train"),
    [
        (SINGLE, IDS, {}),
        (SINGLE, IDS, {"class_weights": "balanced", "label_smoothing_factor": 0.1, "loss": "focal"}),
        (MULTI, SEVERAL, {"class_weights": "balanced", "label_smoothing_factor": 0.1, "loss": "focal"}),
        (NUMBERS, LOGITS.flip(0), {"loss": "huber"}),
    ],
)
def test_a_rows_loss_does_not_depend_on_its_batch_and_is_fp32(
    kind: ProblemType, targets: torch.Tensor, train: dict[str, Any]
) -> None:
    loss = loss_of(kind, targets, ABC, **train)
    whole = loss(LOGITS, targets)
    one_by_one = torch.cat([loss(LOGITS[i : i + 1], targets[i : i + 1]) for i in range(8)])
    torch.testing.assert_close(whole, one_by_one)
    assert (whole.shape, whole.dtype) == ((8,), torch.float32)
    assert loss(LOGITS.bfloat16(), targets).dtype == torch.float32


def test_of_equal_logits_the_plain_loss_of_evaluations_is_the_same_number() -> None:
    """What is trained on is what is told, where nothing is weighed."""
    for kind, targets in ((SINGLE, IDS), (MULTI, SEVERAL)):
        told = TASKS[kind].score(LOGITS.numpy(), targets.numpy()).loss
        assert float(loss_of(kind, targets, ABC)(LOGITS, targets).mean()) == pytest.approx(told, rel=1e-6)
    numbers = LOGITS.flip(0)
    units = TASKS[NUMBERS].units(numbers.numpy(), 3)
    told = TASKS[NUMBERS].score(units.of(LOGITS.numpy()), numbers.numpy()).loss
    assert float(loss_of(NUMBERS, numbers, ABC, units)(LOGITS, numbers).mean()) == pytest.approx(told, rel=1e-6)


# --- class weights


def weights_of(kind: ProblemType, targets: Any, labels: tuple[str, ...], wanted: Any) -> np.ndarray:
    job = Job().replace({"data.problem_type": kind, "train.class_weights": wanted})
    found = class_weights(job, splits_of(kind, targets, labels))
    assert found is not None
    return found


def test_balanced_weights_of_single_labels_are_worked_out_by_hand() -> None:
    """6 rows of a, 2 of b: 8 / (2 * 6) and 8 / (2 * 2), so that each label weighs as much and the mean row 1."""
    ids = [0] * 6 + [1] * 2
    found = weights_of(SINGLE, ids, ("a", "b"), "balanced")
    assert found == pytest.approx([2 / 3, 2])
    assert found[ids].mean() == pytest.approx(1)


@pytest.mark.parametrize("wanted", ["balanced", {"b": 5.0}, {"a": 0.1, "c": 3.0}])
def test_the_mean_weight_of_a_train_row_is_1(wanted: Any) -> None:
    ids = np.array([0] * 50 + [1] * 7 + [2] * 3)
    assert weights_of(SINGLE, ids, (*ABC, "none of the rows"), wanted)[ids].mean() == pytest.approx(1)


def test_given_weights_are_in_proportion_and_others_1() -> None:
    found = weights_of(SINGLE, [0, 0, 1, 2], ABC, {"b": 5.0})
    assert found / found[0] == pytest.approx([1, 5, 1])


def test_weights_of_several_labels_are_of_rows_that_carry_them() -> None:
    """a is carried by 2 of 8 rows: 6 / 2; b by all; c by none, which is bounded."""
    targets = np.zeros((8, 3))
    targets[:2, 0] = targets[:, 1] = 1
    assert weights_of(MULTI, targets, ABC, "balanced") == pytest.approx([3, 0, 8])
    assert weights_of(MULTI, np.eye(500, 1), ("a",), "balanced") == pytest.approx([MOST_WEIGHT])
    assert weights_of(MULTI, targets, ABC, {"a": 4}) == pytest.approx([4, 1, 1])


def test_weighed_losses_are_the_rows_own_times_their_weight() -> None:
    plain, weighed = loss_of(SINGLE, IDS, ABC), loss_of(SINGLE, IDS, ABC, class_weights={"b": 4.0})
    weights = torch.from_numpy(weights_of(SINGLE, IDS, ABC, {"b": 4.0}))
    torch.testing.assert_close(weighed(LOGITS, IDS), plain(LOGITS, IDS) * weights[IDS])
    several = loss_of(MULTI, SEVERAL, ABC, class_weights={"b": 4.0})(LOGITS, SEVERAL)
    own: Any = {"pos_weight": torch.tensor([1.0, 4, 1]), "reduction": "none"}
    torch.testing.assert_close(several, functional.binary_cross_entropy_with_logits(LOGITS, SEVERAL, **own).mean(1))


def test_a_weight_of_a_label_that_is_not_there_is_told() -> None:
    with pytest.raises(
        ConfigError, match=r"`train\.class_weights` names 'z', which is not a label of the data: a, b, c"
    ):
        weights_of(SINGLE, IDS, ABC, {"z": 2.0})


# --- smoothing, focal


def test_smoothing_spreads_a_share_of_the_target() -> None:
    """Of 3 labels and 0.3, the right one keeps 0.8 and the others 0.1 each; of several, 1 is 0.85 and 0 is 0.15."""
    logs = LOGITS.log_softmax(1)
    expected = -(0.7 * logs[torch.arange(8), IDS] + 0.1 * logs.sum(1))
    torch.testing.assert_close(loss_of(SINGLE, IDS, ABC, label_smoothing_factor=0.3)(LOGITS, IDS), expected)
    several = loss_of(MULTI, SEVERAL, ABC, label_smoothing_factor=0.3)(LOGITS, SEVERAL)
    wanted = SEVERAL * 0.7 + 0.15
    torch.testing.assert_close(
        several, functional.binary_cross_entropy_with_logits(LOGITS, wanted, reduction="none").mean(1)
    )


def test_focal_looks_away_from_what_is_right_already() -> None:
    """Right with probability 3/4: (1/4)² of the loss."""
    logits, ids = torch.tensor([[math.log(3), 0.0], [0.0, math.log(3)]]), torch.tensor([0, 0])
    found = loss_of(SINGLE, [0, 1], ("a", "b"), loss="focal")(logits, ids)
    assert GAMMA == 2
    assert found.tolist() == pytest.approx([math.log(4 / 3) / 16, math.log(4) * 9 / 16])
    several = loss_of(MULTI, np.eye(2), ("a", "b"), loss="focal")(logits[:1], torch.tensor([[1.0, 0.0]]))
    assert several.tolist() == pytest.approx([(math.log(4 / 3) / 16 + math.log(2) / 4) / 2])


# --- numbers


def test_numbers_are_standardised_before_they_are_compared() -> None:
    """Of mean 100 and deviation 10, an output of 1 is 110: one deviation beside 120, two beside 130."""
    units = Units(np.array([10.0]), np.array([100.0]))
    outputs, numbers = torch.tensor([[1.0], [1.0], [1.0]]), torch.tensor([[120.0], [130.0], [110.0]])
    assert loss_of(NUMBERS, numbers, ("x",), units)(outputs, numbers).tolist() == pytest.approx([1, 4, 0])
    huber = loss_of(NUMBERS, numbers, ("x",), units, loss="huber")(outputs, numbers)
    assert huber.tolist() == pytest.approx([0.5, 1.5, 0])
