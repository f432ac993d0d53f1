"""Line charts as inline SVG.

No library: matplotlib's and Plotly's drawings are heavier than the page may be, in bytes or in what must be installed,
and neither follows the reader's light or dark scheme.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 420, 230  # so that letters stay legible on a phone, where the drawing is 360 pixels wide
LEFT, RIGHT, TOP, BOTTOM = 62, 12, 10, 34
MOST_POINTS = 400  # of a line: more than the page has pixels for
Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """`kind` is the class of its colour, `a` to `d`; points that are not finite are left out."""

    name: str
    points: Sequence[Point]
    kind: str = "a"
    dots: bool = False


def chart(title: str, lines: Sequence[Line], x_label: str, y_label: str, marks: Sequence[float] = ()) -> str:
    """One chart, or nothing where no line has a point.

    Args:
        title: read out in place of the drawing.
        marks: places on the x axis with a line from bottom to top.
    """
    kept = [Line(line.name, thinned(line.points), line.kind, line.dots) for line in lines]
    points = [point for line in kept for point in line.points]
    if not points:
        return ""
    xs, ys = _ticks([x for x, _ in points]), _ticks([y for _, y in points])
    body = [_axis_x(xs, x_label), _axis_y(ys, y_label)]
    body += [f'<path class="mark" d="M{_x(mark, xs):.1f} {TOP}V{HEIGHT - BOTTOM}"/>' for mark in marks]
    body += [_line(line, xs, ys) for line in kept if line.points]
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{_escaped(title)}">' + "".join(body) + "</svg>"


def thinned(points: Sequence[Point], most: int = MOST_POINTS) -> list[Point]:
    """The finite points; of too many the mean of each stretch, and the last."""
    finite = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
    if len(finite) <= most:
        return finite
    size = math.ceil(len(finite) / (most - 1))
    parts = [finite[i : i + size] for i in range(0, len(finite), size)]
    means = [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in parts]
    return [*means, finite[-1]]


def _ticks(values: Sequence[float], wanted: int = 5) -> list[float]:
    """Round numbers around all values, two or more."""
    low, high = min(values), max(values)
    if high - low < 1e-12 * max(abs(high), 1e-300):
        low, high = low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
    rough = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, max(last, first + 1) + 1)]


def _x(value: float, ticks: Sequence[float]) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * (value - ticks[0]) / (ticks[-1] - ticks[0])


def _y(value: float, ticks: Sequence[float]) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - ticks[0]) / (ticks[-1] - ticks[0])


def _axis_x(ticks: Sequence[float], label: str) -> str:
    y = HEIGHT - BOTTOM
    shown = "".join(_text(_x(t, ticks), y + 14, f"{t:g}", "middle") for t in ticks)
    middle = (LEFT + WIDTH - RIGHT) / 2
    axis = f'<path class="axis" d="M{LEFT} {y}H{WIDTH - RIGHT}"/>'
    return axis + shown + _text(middle, HEIGHT - 4, label, "middle")


def _axis_y(ticks: Sequence[float], label: str) -> str:
    grid = "".join(f'<path class="grid" d="M{LEFT} {_y(t, ticks):.1f}H{WIDTH - RIGHT}"/>' for t in ticks)
    shown = "".join(_text(LEFT - 6, _y(t, ticks) + 4, f"{t:g}", "end") for t in ticks)
    middle = (TOP + HEIGHT - BOTTOM) / 2
    return f'{grid}{shown}<g transform="rotate(-90 12 {middle})">{_text(12, middle, label, "middle")}</g>'


def _line(line: Line, xs: Sequence[float], ys: Sequence[float]) -> str:
    places = [(_x(x, xs), _y(y, ys)) for x, y in line.points]
    dots = "".join(f'<circle class="{line.kind}" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>' for x, y in places)
    if len(places) == 1:
        return dots
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    return f'<path class="line {line.kind}" d="{path}"/>' + (dots if line.dots else "")


def _text(x: float, y: float, words: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{_escaped(words)}</text>'


def _escaped(text: str) -> str:
    from html import escape

    return escape(text, quote=True)


def parallel(title: str, axes: Sequence[str], rows: Sequence[Sequence[float]]) -> str:
    """Parallel coordinates: an axis a column, a line a row, the last row in colour and on top.

    Args:
        rows: values from 0 to 1, as many as axes.
    """
    if not rows or len(axes) < 2:
        return ""
    places = [LEFT + (WIDTH - LEFT - 48) * i / (len(axes) - 1) for i in range(len(axes))]
    low, high = HEIGHT - BOTTOM, TOP
    names = "".join(
        f'<path class="axis" d="M{x:.1f} {high}V{low}"/>'
        + _text(x, low + (14 if i % 2 else 26), name.split(".")[-1], "middle")
        for i, (x, name) in enumerate(zip(places, axes, strict=True))
    )
    lines = "".join(
        f'<path class="line {"b" if i == len(rows) - 1 else "d thin"}" d="M'
        + "L".join(f"{x:.1f} {low - (low - high) * value:.1f}" for x, value in zip(places, row, strict=True))
        + '"/>'
        for i, row in enumerate(rows)
    )
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{_escaped(title)}">{lines}{names}</svg>'
