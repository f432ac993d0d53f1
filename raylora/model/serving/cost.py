"""What a forward costs on this machine, by its tokens and by torch's threads."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch

N = TypeVar("N", float, np.ndarray)
TIMED = ((1, 16), (4, 16), (16, 16), (16, 32))  # rows, tokens of each


@dataclass(frozen=True)
class Cost:
    """Seconds of a forward with so many torch threads: `base_s + token_s * tokens`, padding included."""

    base_s: float
    token_s: float
    threads: int = 1

    def seconds(self, tokens: N) -> N:
        return self.base_s + self.token_s * tokens


def least_seconds(tokens: np.ndarray, costs: Sequence[Cost]) -> np.ndarray:
    """Of the cheapest of `costs`, for each number of tokens."""
    return np.min([cost.seconds(tokens) for cost in costs], axis=0)


def cheapest_for(tokens: int, costs: Sequence[Cost]) -> Cost:
    return min(costs, key=lambda cost: cost.seconds(float(tokens)))


def measure(run_s: Callable[[int, int], float], threads: Iterable[int]) -> list[Cost]:
    """What a forward costs here: on GPUs nearly all is launching it, on CPUs little. Also warms torch up.

    Args:
        run_s: runs so many rows of so many tokens; its seconds.
        threads: of torch, each measured. One is among them on CPUs: threads wait for each other a hundred times in a
            forward, and for one short text that can take longer than what they share out.
    """
    return [_measured(run_s, each) for each in threads]


def _measured(run_s: Callable[[int, int], float], threads: int) -> Cost:
    torch.set_num_threads(threads)
    tokens = [rows * width for rows, width in TIMED]
    taken_s = [min([run_s(rows, width) for _ in range(4)][1:]) for rows, width in TIMED]
    return fit_cost(tokens, taken_s, threads)


def fit_cost(tokens: Sequence[int], taken_s: Sequence[float], threads: int = 1) -> Cost:
    """The line nearest to timings, in proportion to them, held to what can be: no part below zero."""
    token_s, base_s = np.polyfit(tokens, taken_s, 1, w=1 / np.array(taken_s))
    return Cost(max(float(base_s), 0.0), max(float(token_s), 1e-9), threads)
