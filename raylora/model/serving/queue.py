"""Which waiting rows run next: the oldest, and with it as many of like length as the token budget holds."""

from collections.abc import Sequence
from dataclasses import dataclass

LOOK_AHEAD = 512  # rows looked at for a batch; sorting them takes a tenth of a millisecond


@dataclass(frozen=True, eq=False)
class Waiting:
    """A row in the queue: its tokens, and the lane (`ServedBase.lane`) that its batch must be of."""

    tokens: int
    lane: object


def choose(waiting: Sequence[Waiting], max_tokens: int) -> list[int]:
    """Places in `waiting` (oldest first) of the rows to run together: rows x longest is at most `max_tokens`.

    The oldest row always runs, whatever its length, so that none waits for ever. Rows around its length come with it:
    shorter ones first, longest of them first, then longer ones.
    """
    oldest = waiting[0]
    lane = [i for i, row in enumerate(waiting[:LOOK_AHEAD]) if row.lane == oldest.lane]
    longest = max(waiting[i].tokens for i in lane)
    if len(lane) * longest <= max_tokens:
        return lane
    order = sorted(lane, key=lambda i: (waiting[i].tokens, i > 0))
    at = order.index(0)
    low, high, width = at, at + 1, oldest.tokens
    while low > 0 and (high - low + 1) * width <= max_tokens:
        low -= 1
    while high < len(order) and (high - low + 1) * waiting[order[high]].tokens <= max_tokens:
        high += 1
    return order[low:high]
