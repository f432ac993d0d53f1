"""Which rows are stepped together: a pure function of lengths, seed and epoch, never of the number of workers."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

POOL = 64  # batches sorted together: rows of a batch then differ by about 1/64 of the length range


@dataclass(frozen=True)
class MicroBatch:
    """One forward and backward of one worker.

    `step` is the one of the epoch that it is a part of. `weight` makes the mean over workers and accumulation steps of
    `weight * mean loss` the mean over the step's rows, also where the rows do not divide evenly; it is 1 where they do
    and 0 for a stand-in of no rows.
    """

    step: int
    indices: np.ndarray
    weight: float


@dataclass(frozen=True)
class BatchPlan:
    """Cuts an epoch into steps, and a step into each worker's micro-batches.

    Args:
        lengths: [N] tokens of each row.
        global_batch_size: rows of one optimizer step, over all workers and accumulation steps.
        micro_batch_size: rows that one worker can take at once.
        rank, world_size: this worker among all.
    """

    lengths: np.ndarray
    seed: int
    global_batch_size: int
    micro_batch_size: int
    rank: int = 0
    world_size: int = 1

    @property
    def steps(self) -> int:
        return -(-len(self.lengths) // self.global_batch_size)

    @property
    def accumulation_steps(self) -> int:
        return -(-self.global_batch_size // (self.micro_batch_size * self.world_size))

    def epoch(self, epoch: int) -> Iterator[MicroBatch]:
        """This worker's micro-batches of an epoch: `steps * accumulation_steps` of them."""
        parts = self.world_size * self.accumulation_steps
        for step, rows in enumerate(shuffled_batches(self.lengths, self.global_batch_size, (self.seed, epoch))):
            for indices in np.array_split(rows, parts)[self.rank :: self.world_size]:
                weight = len(indices) * parts / len(rows)
                yield MicroBatch(step, indices if len(indices) else rows[:1], weight)


def shuffled_batches(lengths: np.ndarray, rows: int, seed: tuple[int, int]) -> list[np.ndarray]:
    """All rows once, in batches of like length, in random order: shuffle, sort pools of 64 batches, shuffle batches.

    The last batch may be smaller; no row is dropped. The rows of a batch are drawn anew each epoch, the order of the
    batches is the seed's alone: step s then has rows of about the same length, and equally many, in every epoch, so
    that trials at different epochs can be stepped together with little padding (`bank`).

    Args:
        seed: (seed, epoch).
    """
    random = np.random.default_rng(seed)
    order = random.permutation(len(lengths))
    batches: list[np.ndarray] = []
    for start in range(0, len(order), POOL * rows):
        pool = order[start : start + POOL * rows]
        pool = pool[np.argsort(lengths[pool], kind="stable")]
        batches += [pool[i : i + rows] for i in range(0, len(pool), rows)]
    return [batches[i] for i in np.random.default_rng(seed[0]).permutation(len(batches))]


def sorted_batches(lengths: np.ndarray, rows: int, windows: np.ndarray | None = None) -> list[np.ndarray]:
    """All rows once, by length, in batches of at most `rows`: least padding, for evaluation and prediction.

    Args:
        windows: [N] how many each row has; a batch then holds at most `rows` windows, or one row.
    """
    order = np.argsort(lengths, kind="stable")
    if windows is None:
        return [order[i : i + rows] for i in range(0, len(order), rows)]
    ends, batches, start = np.cumsum(windows[order]), list[np.ndarray](), 0
    while start < len(order):
        most = ends[start] - windows[order[start]] + rows
        end = max(start + 1, int(np.searchsorted(ends, most, side="right")))
        batches.append(order[start:end])
        start = end
    return batches
