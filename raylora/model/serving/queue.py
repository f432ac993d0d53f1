"""Which waiting rows run next: the batch with the oldest row, of the cheapest way to run all that waits."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from raylora.model.serving.cost import Cost, least_seconds

LOOK_AHEAD = 256  # rows looked at for a batch; dividing so many takes about two milliseconds


@dataclass(frozen=True, eq=False)
class Waiting:
    """A row in the queue: its tokens, with windows' padding, and `ServedBase.batch_key` of its adapter: rows of one key
    share a batch."""

    tokens: int
    batch_key: object


def choose(waiting: Sequence[Waiting], max_tokens: int, costs: Sequence[Cost]) -> list[int]:
    """Places in `waiting` (oldest first) of the rows to run together.

    The oldest row always runs, whatever its length, so that none waits for ever. Which rows come with it follows from
    the cheapest division of all rows of its key into batches of neighbours by length; a batch has rows x longest
    tokens, at most `max_tokens` unless it is a single row.
    """
    oldest = waiting[0]
    same = [i for i, row in enumerate(waiting[:LOOK_AHEAD]) if row.batch_key == oldest.batch_key]
    order = sorted(same, key=lambda i: waiting[i].tokens)
    starts = cheapest(np.array([waiting[i].tokens for i in order]), max_tokens, costs)
    at = order.index(0)
    start = max(s for s in starts if s <= at)
    end = min((s for s in starts if s > at), default=len(order))
    return order[start:end]


def cheapest(lengths: np.ndarray, max_tokens: int, costs: Sequence[Cost]) -> list[int]:
    """Where the batches begin in the cheapest division of rows sorted by length."""
    count = len(lengths)
    best, begin = np.zeros(count + 1), np.zeros(count + 1, dtype=int)
    for end in range(1, count + 1):
        width = int(lengths[end - 1])
        first = min(max(0, end - max_tokens // width), end - 1)
        totals = best[first:end] + least_seconds((end - np.arange(first, end)) * width, costs)
        at = int(totals.argmin())
        best[end], begin[end] = totals[at], first + at
    starts: list[int] = []
    end = count
    while end:
        end = int(begin[end])
        starts.append(end)
    return starts[::-1]
