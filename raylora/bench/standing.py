"""How the servers of `bench serve` stand beside each other: a table of medians, and the targets."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from raylora.bench.inprocess import Limit
from raylora.bench.load import Load
from raylora.bench.verdict import target
from raylora.records import Say


@dataclass(frozen=True)
class Shape:
    """A load: so many clients, so many texts a request."""

    clients: int
    rows: int = 1

    def __str__(self) -> str:
        many = f" x {self.rows} texts" if self.rows > 1 else ""
        return f"{self.clients} client{'s' * (self.clients > 1)}{many}"


@dataclass(frozen=True)
class Measured:
    """`off` is the largest difference of a score from the same adapter's in this process, in fp32."""

    loads: Mapping[Shape, Load]
    off: float | None


Run = Mapping[str, Measured]


def middle(loads: Sequence[Load]) -> Load:
    """Each figure's median; counts are those of all together."""
    statuses = sorted({status for one in loads for status in one.statuses})
    return Load(
        **{
            name: statistics.median(getattr(one, name) for one in loads)
            for name in ("requests_per_s", "rows_per_s", "p50_ms", "p95_ms", "p99_ms", "client_cores")
        },
        statuses={status: sum(one.statuses.get(status, 0) for one in loads) for status in statuses},
        misshapen=sum(one.misshapen for one in loads),
    )


def report(
    words: Mapping[str, str], runs: Sequence[Run], limits: Sequence[Limit], shapes: Sequence[Shape]
) -> list[str]:
    """The table: a line for each server, a column for each load; below it, what failed.

    Args:
        words: for each server.
    """
    best = statistics.median(one.best for one in limits)
    size = statistics.mode(max(one.rows_per_s, key=lambda size: one.rows_per_s[size]) for one in limits)
    alone = statistics.median(one.p50_ms for one in limits)
    found = {name: {shape: middle([run[name].loads[shape] for run in runs]) for shape in shapes} for name in words}
    head = ["texts/s, p50/p95/p99 ms", *map(str, shapes), "off by"]
    limit = [f"in process: {best:.0f} at batch {size}", f"{1000 / alone:.0f}  {_ms(alone)}", *[""] * len(shapes)]
    lines = [
        [line, *(_cell(found[name][shape]) for shape in shapes), _off([run[name].off for run in runs])]
        for name, line in words.items()
    ]
    failed = [
        f"  {words[name]}, {shape}: answers by status {one.statuses}, {one.misshapen} of another shape"
        for name, own in found.items()
        for shape, one in own.items()
        if one.failed
    ]
    return [*table([head, limit, *lines]), *failed]


def _cell(one: Load) -> str:
    return f"{one.rows_per_s:.0f}  {_ms(one.p50_ms)}/{_ms(one.p95_ms)}/{_ms(one.p99_ms)}"


def _off(found: Sequence[float | None]) -> str:
    return f"{max(off or 0.0 for off in found):.0e}" if found[0] is not None else ""


def _ms(value: float) -> str:
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Aligned columns: the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  " + "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]


def compare(runs: Sequence[Run], limits: Sequence[Limit], shapes: Sequence[Shape], say: Say) -> None:
    """The targets that these runs can answer."""
    turns = list(zip(runs, limits, strict=True))
    batches = [name for name in runs[0] if name.startswith("batch")]
    for shape in shapes if "merged" in runs[0] else ():
        own = [run["merged"].loads[shape].rows_per_s for run in runs]
        if shape == Shape(1):
            more = statistics.median(run["merged"].loads[shape].p50_ms - one.p50_ms for run, one in turns)
            target(say, "p50 at 1 client, ms above in process", more, "<=", 4)
        else:
            share = statistics.median(run["merged"].loads[shape].rows_per_s / one.best for run, one in turns)
            target(say, f"{shape}, texts/s against in process at its best", share, ">=", 0.9 if shape.rows > 1 else 0.7)
        if batches and shape.rows == 1:
            best = [max(run[name].loads[shape].rows_per_s for name in batches) for run in runs]
            target(say, f"{shape}, against the best @serve.batch for it", _ratio(own, best), ">=", 1)
        if "many" in runs[0]:
            mixed = [run["many"].loads[shape].rows_per_s for run in runs]
            target(say, f"{shape}, many mixed adapters against one merged", _ratio(mixed, own), ">=", 0.85)


def _ratio(own: Sequence[float], others: Sequence[float]) -> float:
    """The median of ratios, each within one turn; without end where the other answered nothing."""
    return statistics.median(a / b if b else float("inf") for a, b in zip(own, others, strict=True))
