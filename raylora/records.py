"""What a job yields, and what it says while it runs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from raylora.metrics import Scores

Say = Callable[[str], None]


@runtime_checkable
class LiveSay(Protocol):
    """A `Say` with a place for one line that is drawn over: how far the work is, on a terminal."""

    def __call__(self, line: str) -> None: ...

    def live(self, line: str) -> None: ...


@dataclass(frozen=True)
class TrainResult:
    """A finished run. `folder_uri` holds config.yaml, metrics.json, history.jsonl and `adapter/`.

    `floor` is of `floor.summary`; None with `train.floor: false`.
    """

    folder_uri: str
    adapter_uri: str
    labels: tuple[str, ...]
    validation: Scores
    test: Scores | None
    floor: dict[str, Any] | None
    best_epoch: float
    metrics: dict[str, Any]


@dataclass(frozen=True)
class TuneResult:
    """A finished sweep. `folder_uri` holds trials.csv, best_config.yaml, metrics.json and `adapter/`, the winner's.

    `validation` chose the winner among all trials and is optimistic; `test` was computed once, for the winner.
    """

    folder_uri: str
    adapter_uri: str
    trials: int
    sample: dict[str, Any]
    validation: Scores
    test: Scores | None
    floor: dict[str, Any] | None
    metrics: dict[str, Any]
