"""An evaluation for a terminal."""

from collections.abc import Sequence
from itertools import chain

from raylora.evaluation.record import Comparison, Coverage, Estimate, Evaluation, Evaluations, Slice
from raylora.tasks.exams import Group

SHOWN_GROUPS, SHOWN_SLICES, SHOWN_CONFUSIONS = 20, 10, 5
SHOWN_COVERAGE = (0.9, 0.75, 0.5, 0.25)
INDENT = " " * 11


def lines_of(found: Evaluations) -> list[str]:
    each = (_adapter_lines(adapter) for adapter in found.adapters)
    return [*chain.from_iterable(each), *map(_comparison_line, found.comparisons)]


def _adapter_lines(found: Evaluation) -> list[str]:
    return [
        f"adapter    {found.name} ({found.base_model}), {found.rows:,} rows",
        *(f"warning    {note}" for note in found.notes),
        *_metric_lines(found.metrics),
        *_group_lines(found.groups),
        *_confusion_lines(found),
        *_claim_lines(found),
        *_slice_lines(found),
        *_robust_lines(found),
    ]


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """The first column to the left, all others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in enumerate(pairs)).rstrip()
        for pairs in (list(zip(row, widths, strict=True)) for row in rows)
    ]


def _titled(title: str, rows: Sequence[Sequence[str]]) -> list[str]:
    """A table whose first line begins with what it is."""
    return [f"{title if i == 0 else '':<11}{line}" for i, line in enumerate(table(rows))]


def _metric_lines(metrics: dict[str, Estimate]) -> list[str]:
    rows = [(name, f"{each.value:.4f}", f"{each.low:.4f} to {each.high:.4f}") for name, each in metrics.items()]
    return _titled("metrics", [("", "value", "95 % interval"), *rows])


def _group_lines(groups: Sequence[Group]) -> list[str]:
    names = list(groups[0].values)
    shown = sorted(groups, key=lambda group: -group.rows)[:SHOWN_GROUPS]
    rows = [(group.name, *map(_number, group.values.values()), f"{group.rows:,}") for group in groups if group in shown]
    more = [f"{INDENT}and {len(groups) - len(rows)} with fewer rows"] if len(groups) > len(rows) else []
    return [*_titled("groups", [("", *names, "rows"), *rows]), *more]


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"


def _confusion_lines(found: Evaluation) -> list[str]:
    if not found.confusion:
        return []
    labels, counts = found.confusion.labels, found.confusion.counts
    wrong = [
        (count, labels[i], labels[j]) for i, row in enumerate(counts) for j, count in enumerate(row) if i != j and count
    ]
    most = sorted(wrong, key=lambda each: -each[0])[:SHOWN_CONFUSIONS]
    said = ", ".join(f"{true} said to be {wrongly} {count:,}" for count, true, wrongly in most)
    return [f"confused   {said or 'nothing'}"]


def _claim_lines(found: Evaluation) -> list[str]:
    lines: list[str] = []
    if found.calibration:
        lines.append(f"calibrated scores are {100 * found.calibration.ece:.1f} points from what they claim, on average")
    if found.coverage:
        points = [_nearest(found.coverage, share) for share in SHOWN_COVERAGE]
        said = ", ".join(f"{100 * p.coverage:.0f} %: {p.accuracy:.4f}" for p in dict.fromkeys(points))
        lines.append(f"coverage   right among the surest {said}")
    lines += [
        f"promise    {each.accuracy:g} from score {each.score:.4f} on: kept {each.right:.4f} of {each.rows:,} rows"
        for each in found.promises
    ]
    return lines


def _nearest(points: Sequence[Coverage], share: float) -> Coverage:
    return min(points, key=lambda point: abs(point.coverage - share))


def _slice_lines(found: Evaluation) -> list[str]:
    worse = sorted((each for each in found.slices if each.worse), key=lambda each: each.p_adjusted or 0.0)
    tested = sum(each.p is not None for each in found.slices)
    method = f"{found.slice_test}, {tested} of {len(found.slices)} slices tested"
    if not worse:
        return [f"slices     none is worse than the rest beyond chance ({method})"]
    rows = [_slice_row(each) for each in worse[:SHOWN_SLICES]]
    header = ("", found.row_metric, "95 % interval", "merit", "rest", "p", "rows")
    return [f"slices     {len(worse)} worse than the rest ({method}):", *_titled("", [header, *rows])]


def _slice_row(each: Slice) -> tuple[str, ...]:
    return (
        f"{each.by}: {each.value}",
        f"{each.metric.value:.4f}",
        f"{each.metric.low:.4f} to {each.metric.high:.4f}",
        f"{each.merit:.4f}",
        f"{each.rest:.4f}",
        f"{each.p_adjusted:.2g}",
        f"{each.rows:,}",
    )


def _robust_lines(found: Evaluation) -> list[str]:
    rows = [
        (
            each.kind,
            f"{each.moved.value:.4f}",
            f"{each.moved.low:.4f} to {each.moved.high:.4f}",
            f"{each.metrics[found.metric]:.4f}" if found.metric in each.metrics else "",
            f"{each.changed:,}",
        )
        for each in found.robustness
    ]
    header = ("", found.movement, "95 % interval", f"{found.metric} then", "texts changed")
    return _titled("altered", [header, *rows]) if rows else []


def _comparison_line(found: Comparison) -> str:
    return f"compared   {found.words}"
