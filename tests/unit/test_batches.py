"""Batches: every row once, the same steps for any number of workers, little padding."""

import numpy as np
import pytest

from raylora.model.batches import BatchPlan, MicroBatch, shuffled_batches, sorted_batches

SHAPES = [(n, *sizes, world) for n in (1, 13, 103) for sizes in ((8, 8), (16, 3)) for world in (1, 2, 3)]


def skewed_lengths(rows: int) -> np.ndarray:
    return np.random.default_rng(5).lognormal(3, 0.6, rows).astype(np.int32) + 2


def steps_of(plan: BatchPlan, epoch: int) -> list[list[MicroBatch]]:
    """The micro-batches of one worker, grouped by step."""
    micro = list(plan.epoch(epoch))
    assert len(micro) == plan.steps * plan.accumulation_steps
    return [micro[i : i + plan.accumulation_steps] for i in range(0, len(micro), plan.accumulation_steps)]


def steps_of_all(rows: int, step: int, micro: int, world: int) -> list[list[MicroBatch]]:
    """The micro-batches of all workers, grouped by step."""
    ranks = [steps_of(BatchPlan(skewed_lengths(rows), 3, step, micro, rank, world), 1) for rank in range(world)]
    return [[batch for batches in step for batch in batches] for step in zip(*ranks, strict=True)]


def rows_of(step: list[MicroBatch]) -> list[int]:
    return sorted(int(i) for batch in step if batch.weight for i in batch.indices)


@pytest.mark.parametrize(("rows", "step", "micro", "world"), SHAPES)
def test_every_row_is_trained_once_per_epoch(rows: int, step: int, micro: int, world: int) -> None:
    seen = [i for batches in steps_of_all(rows, step, micro, world) for i in rows_of(batches)]
    assert sorted(seen) == list(range(rows))


@pytest.mark.parametrize(("rows", "step", "micro", "world"), SHAPES)
def test_a_step_holds_the_same_rows_for_any_number_of_workers(rows: int, step: int, micro: int, world: int) -> None:
    alone = [rows_of(batches) for batches in steps_of_all(rows, step, step, 1)]
    assert [rows_of(batches) for batches in steps_of_all(rows, step, micro, world)] == alone


@pytest.mark.parametrize(("rows", "step", "micro", "world"), SHAPES)
def test_the_weighted_mean_is_the_mean_over_the_steps_rows(rows: int, step: int, micro: int, world: int) -> None:
    loss = np.random.default_rng(0).random(rows)
    for batches in steps_of_all(rows, step, micro, world):
        weighted = np.mean([batch.weight * loss[batch.indices].mean() for batch in batches])
        assert weighted == pytest.approx(loss[rows_of(batches)].mean())


@pytest.mark.parametrize(("rows", "step", "micro", "world"), SHAPES)
def test_no_worker_takes_more_rows_at_once_than_it_can(rows: int, step: int, micro: int, world: int) -> None:
    sizes = [len(batch.indices) for batches in steps_of_all(rows, step, micro, world) for batch in batches]
    assert 1 <= min(sizes) <= max(sizes) <= micro


def test_weights_are_one_where_rows_divide_evenly() -> None:
    for rank in (0, 1):
        plan = BatchPlan(np.full(32, 9), seed=0, global_batch_size=8, micro_batch_size=2, rank=rank, world_size=2)
        assert (plan.steps, plan.accumulation_steps) == (4, 2)
        assert [batch.weight for batch in plan.epoch(0)] == [1.0] * 8


def test_weights_of_an_uneven_step_are_those_worked_out_by_hand() -> None:
    # five rows on two workers: three and two, of two parts
    weights = [next(BatchPlan(np.full(5, 9), 0, 8, 4, rank, 2).epoch(0)).weight for rank in (0, 1)]
    assert weights == pytest.approx([3 * 2 / 5, 2 * 2 / 5])


def test_a_worker_without_rows_steps_with_a_stand_in_of_weight_zero() -> None:
    first, second = (next(BatchPlan(np.array([4]), 0, 8, 4, rank, 2).epoch(0)) for rank in (0, 1))
    assert (first.indices.tolist(), first.weight) == ([0], 2.0)
    assert (second.indices.tolist(), second.weight) == ([0], 0.0)


def test_batches_of_skewed_lengths_hold_little_padding() -> None:
    lengths = skewed_lengths(5000)

    def padded(batches: list[np.ndarray]) -> float:
        return sum(len(batch) * lengths[batch].max() for batch in batches) / lengths.sum()

    assert padded(np.array_split(np.arange(5000), 313)) > 1.8  # unsorted, nearly half is padding
    assert padded(shuffled_batches(lengths, 16, (0, 0))) < 1.06
    assert padded(sorted_batches(lengths, 16)) < 1.02


def test_long_batches_do_not_come_in_order_of_length() -> None:
    batches = shuffled_batches(skewed_lengths(1000), 10, (0, 0))
    lengths = [skewed_lengths(1000)[batch].mean() for batch in batches]
    assert abs(np.corrcoef(lengths, np.arange(len(lengths)))[0, 1]) < 0.3


def test_only_the_last_batch_of_a_pool_of_rows_is_smaller() -> None:
    batches = shuffled_batches(skewed_lengths(300), 2, (0, 0))  # two pools of 128 rows and one of 44
    assert sorted(len(batch) for batch in batches) == [2] * 150
    assert sorted(len(batch) for batch in shuffled_batches(skewed_lengths(301), 2, (0, 0))) == [1] + [2] * 150


def test_an_epoch_is_the_same_each_time_and_another_each_epoch_and_seed() -> None:
    def rows(seed: int, epoch: int) -> list[int]:
        return [int(i) for batch in BatchPlan(skewed_lengths(100), seed, 8, 8).epoch(epoch) for i in batch.indices]

    assert rows(1, 0) == rows(1, 0)
    assert rows(1, 0) != rows(1, 1)
    assert rows(1, 0) != rows(2, 0)
    assert rows(1, 2) != rows(2, 1)


def test_a_step_is_as_wide_and_as_large_in_every_epoch() -> None:
    """Eight trials at eight epochs, stepped together, pad little more than each alone."""
    lengths = skewed_lengths(1003)
    epochs = [shuffled_batches(lengths, 8, (0, epoch)) for epoch in range(8)]
    assert [len({len(batch) for batch in step}) for step in zip(*epochs, strict=True)] == [1] * 126
    alone = sum(int(lengths[batch].max()) for batches in epochs for batch in batches)
    together = 8 * sum(int(max(lengths[b].max() for b in step)) for step in zip(*epochs, strict=True))
    assert together < 1.1 * alone
    assert {tuple(batch) for batch in map(tuple, epochs[0])} != {tuple(batch) for batch in map(tuple, epochs[1])}


def test_sorted_batches_are_every_row_once_by_length() -> None:
    batches = sorted_batches(np.array([5, 1, 3, 1, 4]), 2)
    assert [batch.tolist() for batch in batches] == [[1, 3], [2, 4], [0]]
    assert sorted_batches(np.array([], dtype=np.int32), 2) == []
