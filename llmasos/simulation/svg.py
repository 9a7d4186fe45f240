"""Two kinds of chart as inline SVG: lines over rounds and grouped bars. Small functions, everything escaped.

Colours are CSS classes, `s0` to `s7` for series and `grid`, `axis`, `mark` for the rest, that the page defines once for
light and once for dark. Each series is also named at its end, so that nothing hangs on colour alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 720, 320
LEFT, RIGHT, TOP, BOTTOM = 56, 150, 30, 42
LABEL_GAP = 14.0
BAR_TOP, BAR_ROW, BAR_GAP, BAR_LEFT, BAR_RIGHT = 8, 18, 16, 150, 70
COLOURS = 8


@dataclass(frozen=True, slots=True)
class Series:
    """A named line: points (x, y), both finite. `wide` draws it stronger."""

    name: str
    points: Sequence[tuple[float, float]]
    colour: int
    wide: bool = False


@dataclass(frozen=True, slots=True)
class Mark:
    """A horizontal line to compare with."""

    name: str
    value: float


@dataclass(frozen=True, slots=True)
class Bars:
    """A labelled group of (series name, value, colour)."""

    label: str
    values: Sequence[tuple[str, float, int]]


def finite(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    return [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]


def line_chart(series: Sequence[Series], marks: Sequence[Mark], *, title: str, x_label: str, y_label: str) -> str:
    """Lines over a linear x and a logarithmic y axis, y > 0; empty text when there is nothing to draw."""
    values = [y for line in series for _, y in line.points] + [mark.value for mark in marks]
    xs = [x for line in series for x, _ in line.points]
    if not xs or min(values) <= 0:
        return ""
    x_of = _linear(min(xs), max(xs), LEFT, WIDTH - RIGHT)
    low, high = min(values) / 1.08, max(values) * 1.08
    log_y = _linear(math.log(low), math.log(high), HEIGHT - BOTTOM, TOP)

    def y_of(value: float) -> float:
        return log_y(math.log(value))

    body = [*_y_axis(log_ticks(low, high), y_of), *_x_axis(xs, x_of, x_label)]
    body += [_mark(mark, y_of) for mark in marks]
    body += [_line(line, x_of, y_of) for line in series]
    ends = [(mark.name, y_of(mark.value), "mark") for mark in marks]
    ends += [(line.name, y_of(line.points[-1][1]), f"s{line.colour % COLOURS}") for line in series if line.points]
    body += _end_labels(ends)
    body.append(_text(LEFT, 14, y_label, "axis"))
    return _svg(title, WIDTH, HEIGHT, body)


def bar_chart(groups: Sequence[Bars], *, title: str) -> str:
    """Horizontal bars from zero, grouped; empty text when there is nothing to draw."""
    values = [value for group in groups for _, value, _ in group.values if math.isfinite(value)]
    if not values:
        return ""
    x_of = _linear(0.0, max(values), BAR_LEFT, WIDTH - BAR_RIGHT)
    body: list[str] = []
    y = float(BAR_TOP)
    for group in groups:
        middle = y + BAR_ROW * len(group.values) / 2 + 4
        body.append(_text(BAR_LEFT - 10, middle, group.label, "axis", anchor="end"))
        for name, value, colour in group.values:
            body.append(_bar(name, value, colour, x_of, y))
            y += BAR_ROW
        y += BAR_GAP
    return _svg(title, WIDTH, round(y), body)


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten between the bounds; if that gives fewer than two, the bounds' round neighbours."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    fine = (1, 2, 5) if high / low >= 3 else (1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 8, 9)
    ticks = [factor * 10.0**decade for decade in decades for factor in fine]
    inside = [tick for tick in ticks if low <= tick <= high]
    return inside if len(inside) >= 2 else [low, high]


def _linear(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    span = (high - low) or 1.0
    return lambda value: start + (value - low) / span * (end - start)


def _svg(title: str, width: int, height: int, body: Sequence[str]) -> str:
    inner = "\n".join(body)
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}"'
        f' xmlns="http://www.w3.org/2000/svg">\n<title>{escape(title)}</title>\n{inner}\n</svg>'
    )


def _text(x: float, y: float, text: str, css: str, *, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{css}" text-anchor="{anchor}">{escape(text)}</text>'


def _y_axis(ticks: Sequence[float], y_of: Callable[[float], float]) -> Iterator[str]:
    for tick in ticks:
        y = y_of(tick)
        yield f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>'
        yield _text(LEFT - 8, y + 4, f"{tick:,.4g}", "axis", anchor="end")


def _x_axis(xs: Sequence[float], x_of: Callable[[float], float], label: str) -> Iterator[str]:
    distinct = sorted({round(x) for x in xs})
    every = max(1, -(-len(distinct) // 12))
    for value in distinct[::every]:
        yield _text(x_of(value), HEIGHT - BOTTOM + 18, str(value), "axis", anchor="middle")
    yield _text(WIDTH - RIGHT, HEIGHT - 6, label, "axis", anchor="end")


def _mark(mark: Mark, y_of: Callable[[float], float]) -> str:
    y = y_of(mark.value)
    return f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" class="mark"/>'


def _line(line: Series, x_of: Callable[[float], float], y_of: Callable[[float], float]) -> str:
    points = [(x_of(x), y_of(y)) for x, y in line.points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    css = f"s{line.colour % COLOURS}" + (" wide" if line.wide else "")
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{3 if line.wide else 2}" class="{css}"/>' for x, y in points)
    return f'<g><title>{escape(line.name)}</title><polyline points="{path}" class="{css}"/>{dots}</g>'


def _end_labels(ends: Sequence[tuple[str, float, str]]) -> Iterator[str]:
    """Names beside the lines' ends, moved apart so that none hides another."""
    taken = -math.inf
    lowest = HEIGHT - BOTTOM
    ordered = sorted(ends, key=lambda end: end[1])
    for place, (name, y, css) in enumerate(ordered):
        room = lowest - LABEL_GAP * (len(ordered) - 1 - place)
        taken = max(min(y, room), taken + LABEL_GAP)
        yield _text(WIDTH - RIGHT + 10, taken + 4, name, f"label {css}")


def _bar(name: str, value: float, colour: int, x_of: Callable[[float], float], y: float) -> str:
    if not math.isfinite(value):
        return _text(BAR_LEFT, y + 13, f"{name}: not measured", "axis")
    end = x_of(value)
    css = f"s{colour % COLOURS}"
    rect = (
        f'<rect x="{BAR_LEFT}" y="{y + 1:.1f}" width="{max(end - BAR_LEFT, 1):.1f}" height="{BAR_ROW - 3}"'
        f' class="{css}"><title>{escape(name)}: {value:,.2f}</title></rect>'
    )
    return rect + _text(end + 6, y + 13, f"{value:,.2f}", "axis")
