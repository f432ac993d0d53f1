"""What an adapter must reach, by `--fail-under f1=0.9` and `--fail-over mse=0.5`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from raylora.config.explain import close_to
from raylora.errors import ConfigError, GateError
from raylora.evaluation.record import Evaluation
from raylora.metrics import METRICS, greater_is_better

Side = Literal["under", "over"]


@dataclass(frozen=True)
class Gate:
    """Fails an adapter whose metric is under, or over, a limit."""

    side: Side
    metric: str
    limit: float

    def __str__(self) -> str:
        return f"--fail-{self.side} {self.metric}={self.limit:g}"

    def holds(self, value: float) -> bool:
        """A value that is no number passes no gate."""
        return value >= self.limit if self.side == "under" else value <= self.limit


def read_gate(word: str, side: Side) -> Gate:
    """Raises:
    ConfigError: it is not METRIC=NUMBER, no such metric is known, or the metric is better on the other side.
    """
    metric, _, text = word.partition("=")
    metric = metric.strip()
    try:
        limit = float(text)
    except ValueError:
        raise ConfigError(f"--fail-{side} takes METRIC=NUMBER, as f1=0.9, found '{word}'.") from None
    if metric not in METRICS:
        raise ConfigError(
            f"--fail-{side} {word}: no metric '{metric}'{close_to(metric, METRICS)} Known: {', '.join(METRICS)}."
        )
    if greater_is_better(metric) != (side == "under"):
        better, other = ("higher", "under") if greater_is_better(metric) else ("lower", "over")
        raise ConfigError(f"`{metric}` is better the {better} it is: write --fail-{other} {metric}={text}.")
    return Gate(side, metric, limit)


def check_known(gates: Sequence[Gate], metrics: Sequence[str], of: str) -> None:
    """Raises:
    ConfigError: a gate's metric is not among those `of` a task, or some rows.
    """
    unknown = next((gate for gate in gates if gate.metric not in metrics), None)
    if unknown:
        raise ConfigError(f"{unknown}: `{unknown.metric}` is not known of {of}. Known: {', '.join(metrics)}.")


def check_gates(gates: Sequence[Gate], adapters: Sequence[Evaluation]) -> None:
    """Raises:
    ConfigError: a gate's metric is not known of these rows.
    GateError: an adapter does not pass; names each gate that is not met.
    """
    for adapter in adapters:
        check_known(gates, list(adapter.metrics), f"these {adapter.rows:,} rows")
    missed = [
        f"{adapter.name}: {gate.metric} is {adapter.metrics[gate.metric].value:.4f}, {gate} asks for "
        f"{'at least' if gate.side == 'under' else 'at most'} {gate.limit:g}"
        for adapter in adapters
        for gate in gates
        if not gate.holds(adapter.metrics[gate.metric].value)
    ]
    if missed:
        raise GateError(f"{len(missed)} gate{'s' * (len(missed) > 1)} not met:\n  " + "\n  ".join(missed))
