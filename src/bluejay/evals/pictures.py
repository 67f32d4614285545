"""The pictures of a report, as SVG that needs nothing beside it: bars with intervals, and curves with bands."""

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple, TypeVar

from bluejay.evals.estimates import Estimate, span
from bluejay.evals.evaluate import Result
from bluejay.evals.published import Published
from bluejay.evals.tasks import METRICS

WIDTH, ROW, LEFT, RIGHT = 760, 22, 190, 150
HEIGHT, MARGIN = 240, 48
"""Of a curve, and the room around it for its axes."""
MOST_TICKS = 6
T = TypeVar("T", int, float)
COLOURS = ("#2b6cb0", "#c05621", "#2f855a", "#805ad5", "#b83280", "#718096")


def shortened(name: str, most: int) -> str:
    """A name, or the end of it where it is longer, because the paths of models differ there."""
    return name if len(name) <= most else f"…{name[1 - most :]}"


def svg(width: int, height: int, label: str, parts: Sequence[str]) -> str:
    """A picture with a label for those who cannot see it."""
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>'


class Bar(NamedTuple):
    """A bar of a picture."""

    name: str
    value: float
    low: float
    high: float
    ours: bool = True
    """Whether it was measured here; others, which have no interval, are grey."""


def bars(results: list[Result], published: list[tuple[Published, float]]) -> str:
    """The main figures of a task as bars with intervals, among published ones, the best last."""
    rows = [Bar(result.model, result.main.value, result.main.low, result.main.high) for result in results]
    rows += [Bar(row.model, value, value, value, False) for row, value in published]
    rows.sort(key=lambda bar: bar.value, reverse=not METRICS[results[0].metric].higher_is_better)
    label = f"{results[0].task}: {METRICS[results[0].metric].title}"
    return bar_chart(label, rows, results[0].chance)


def bar_chart(label: str, rows: Sequence[Bar], chance: float | None = None) -> str:
    """Bars with intervals, one below the other, and a line at what guessing gets."""
    top = max([bar.high if math.isfinite(bar.high) else bar.value for bar in rows] + [1e-9])
    width = WIDTH - LEFT - RIGHT

    def x(value: float) -> float:
        return LEFT + width * min(max(value if math.isfinite(value) else 0.0, 0.0) / top, 1.0)

    parts = []
    for number, (name, value, low, high, ours) in enumerate(rows):
        y = number * ROW + 4
        colour = "var(--ours)" if ours else "var(--theirs)"
        figure = f"{value:.4g} ({span(low, high, '.3g')})" if ours else f"{value:.4g}"
        text = escape(shortened(name, 28))
        parts.append(
            f'<text x="{LEFT - 8}" y="{y + 12}" text-anchor="end" fill="currentColor">{text}</text>'
            f'<rect x="{LEFT}" y="{y + 2}" width="{x(value) - LEFT:.1f}" height="12" fill="{colour}"/>'
            f'<text x="{x(max(value, high)) + 6:.1f}" y="{y + 12}" fill="currentColor">{figure}</text>'
        )
        if ours:
            parts.append(
                f'<line x1="{x(low):.1f}" x2="{x(high):.1f}" y1="{y + 8}" y2="{y + 8}" stroke="currentColor"/>'
            )
    if chance:
        parts.append(
            f'<line x1="{x(chance):.1f}" x2="{x(chance):.1f}" y1="0" y2="{len(rows) * ROW}" stroke="currentColor" '
            'stroke-dasharray="3 3" opacity=".6"><title>guessing</title></line>'
        )
    return svg(WIDTH, len(rows) * ROW + 6, label, parts)


def curves(label: str, across: str, lines: dict[str, list[tuple[float, Estimate]]], logarithmic: bool = False) -> str:
    """Figures against `across`, such as the step: for each name its points, joined, with a band for the intervals. A
    name without points is left out; one must have some."""
    lines = {name: line for name, line in lines.items() if line}
    scale = math.log if logarithmic else float
    points = [(scale(at), one) for line in lines.values() for at, one in line]
    ends = [bound for _, one in points for bound in (one.value, one.low, one.high) if math.isfinite(bound)]
    left, right, low, high = min(at for at, _ in points), max(at for at, _ in points), min(ends), max(ends)

    def x(at: float) -> float:
        return MARGIN + (WIDTH - RIGHT - MARGIN) * ((scale(at) - left) / (right - left) if right > left else 0.5)

    def y(value: float) -> float:
        return 8 + (HEIGHT - MARGIN) * (1 - (value - low) / (high - low) if high > low else 0.5)

    bottom = HEIGHT - MARGIN + 14
    parts = [
        f'<line x1="{MARGIN}" x2="{WIDTH - RIGHT}" y1="{bottom}" y2="{bottom}" stroke="currentColor" opacity=".4"/>',
        f'<text x="{(MARGIN + WIDTH - RIGHT) / 2:.0f}" y="{HEIGHT - 4}" text-anchor="middle" fill="currentColor">'
        f"{escape(across)}</text>",
        *(
            f'<text x="{MARGIN - 6}" y="{y(value) + 4:.1f}" text-anchor="end" fill="currentColor">{value:.3g}</text>'
            for value in {low, high}
        ),
        *(
            f'<text x="{x(at):.1f}" y="{bottom + 15}" text-anchor="middle" fill="currentColor">{at:g}</text>'
            for at in evenly_spread([at for line in lines.values() for at, _ in line])
        ),
    ]
    for number, (name, line) in enumerate(lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        sure = [(at, one) for at, one in line if math.isfinite(one.low) and math.isfinite(one.high)]
        band = [(at, one.high) for at, one in sure] + [(at, one.low) for at, one in reversed(sure)]
        shape = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in band)
        path = " ".join(f"{x(at):.1f},{y(one.value):.1f}" for at, one in line)
        dots = "".join(f'<circle cx="{x(at):.1f}" cy="{y(one.value):.1f}" r="3" fill="{colour}"/>' for at, one in line)
        (at, last), text = line[-1], escape(shortened(name, 22))
        parts.append(
            f'<polygon points="{shape}" fill="{colour}" opacity=".18"/>'
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>{dots}'
            f'<text x="{x(at) + 8:.1f}" y="{y(last.value) + 4:.1f}" fill="{colour}">{text}</text>'
        )
    return svg(WIDTH, HEIGHT, label, parts)


def evenly_spread(values: Iterable[T], most: int = MOST_TICKS) -> list[T]:
    """At most so many of the values, each once and in ascending order, the first and the last among them."""
    ordered = sorted(set(values))
    if len(ordered) <= most:
        return ordered
    return [ordered[round(i * (len(ordered) - 1) / (most - 1))] for i in range(most)]
