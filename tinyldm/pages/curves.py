"""Curves as SVG that stands inside a page: axes, ticks, lines; linear or logarithmic."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape

COLOURS = ("#2563eb", "#dc2626", "#16a34a", "#d97706", "#9333ea", "#0891b2", "#be185d", "#65a30d")
WIDTH, HEIGHT = 640, 340
STANDALONE = 'xmlns="http://www.w3.org/2000/svg" font-family="sans-serif" font-size="14"'  # for a file of its own
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 16, 46  # margins around the plotting area


@dataclass(frozen=True)
class Line:
    """Points (x, y) joined in their order. labels: a word at each point; faint: drawn behind, and not in the legend."""

    name: str
    points: tuple[tuple[float, float], ...]
    labels: tuple[str, ...] = ()
    faint: bool = False


def ticks(low: float, high: float, log: bool = False) -> list[float]:
    """Round numbers in [low, high]: about five in steps of 1, 2 or 5 times a power of ten; log: 1, 2, 3, 5 times it."""
    if log:
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        found = [k * 10.0**p for p in powers for k in (1, 2, 3, 5) if low <= k * 10.0**p <= high]
        if len(found) >= 2:
            return found if len(found) <= 8 else [10.0**p for p in powers if low <= 10.0**p <= high]
    rough = (high - low) / 5
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(k * unit for k in (1, 2, 5, 10) if k * unit >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [k * step for k in range(first, math.floor(high / step + 1e-9) + 1)]


def chart(lines: list[Line], x_label: str, y_label: str, log: bool = False) -> str:
    """The lines as one SVG element; points that are not finite, on a log scale not above 0, are left out."""
    kept = [
        [
            (x, y)
            for x, y in line.points
            if math.isfinite(x) and math.isfinite(y) and (y > 0 or not log)
        ]
        for line in lines
    ]
    flat = [point for points in kept for point in points]
    if not flat:
        return "<p>Nothing to draw yet.</p>"
    x_low, x_high = _range([x for x, _ in flat], False)
    y_low, y_high = _range([y for _, y in flat], log)

    def at(x: float, y: float) -> tuple[float, float]:
        down = (
            math.log(y_high / y) / math.log(y_high / y_low)
            if log
            else (y_high - y) / (y_high - y_low)
        )
        return LEFT + (x - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT), TOP + down * (
            HEIGHT - TOP - BOTTOM
        )

    out = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(y_label)} over {escape(x_label)}">'
    ]
    for y in ticks(y_low, y_high, log):
        _, v = at(x_low, y)
        out.append(
            f'<path stroke="#8886" d="M{LEFT} {v:.1f}H{WIDTH - RIGHT}"/>'
            f'<text x="{LEFT - 8}" y="{v + 4:.1f}" text-anchor="end">{y:.4g}</text>'
        )
    for x in ticks(x_low, x_high):
        u, _ = at(x, y_high)
        out.append(
            f'<path stroke="#8886" d="M{u:.1f} {TOP}V{HEIGHT - BOTTOM}"/>'
            f'<text x="{u:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{x:.5g}</text>'
        )
    out.append(
        f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 6}" text-anchor="end">{escape(x_label)}</text>'
        f'<text x="{LEFT}" y="{HEIGHT - 6}">{escape(y_label)}{" (log scale)" if log else ""}</text>'
    )
    for k, (line, points) in enumerate(zip(lines, kept)):
        out += _drawn(line, [at(*point) for point in points], COLOURS[k % len(COLOURS)])
    named = [(line, k) for k, line in enumerate(lines) if line.name and not line.faint]
    legend = "".join(
        f'<span><i style="background:{COLOURS[k % len(COLOURS)]}"></i>{escape(line.name)}</span>'
        for line, k in named
    )
    return "".join(out) + "</svg>" + (f'<p class="legend">{legend}</p>' if len(named) > 1 else "")


def _range(values: list[float], log: bool) -> tuple[float, float]:
    """Lowest and highest value with a little room, never equal."""
    low, high = min(values), max(values)
    if log:
        return low / 1.1, high * 1.1
    room = (high - low) * 0.04 or abs(high) * 0.1 or 1.0
    return low - room, high + room


def _drawn(line: Line, points: list[tuple[float, float]], colour: str) -> list[str]:
    """A line; where its points are few, with a dot and its label at each."""
    if not points:
        return []
    path = "M" + "L".join(f"{u:.1f} {v:.1f}" for u, v in points)
    out = [
        f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="{1 if line.faint else 2}" '
        f'opacity="{0.35 if line.faint else 1}" stroke-linejoin="round"/>'
    ]
    if len(points) <= 24 and not line.faint:
        out += [f'<circle cx="{u:.1f}" cy="{v:.1f}" r="3.5" fill="{colour}"/>' for u, v in points]
        out += [
            f'<text x="{u + 6:.1f}" y="{v - 6:.1f}">{escape(label)}</text>'
            for (u, v), label in zip(points, line.labels)
        ]
    return out


def thinned(values: list[tuple[float, float]], most: int = 400) -> tuple[tuple[float, float], ...]:
    """Points (x, y) as the means of at most so many equal runs of them."""
    size = math.ceil(len(values) / most) or 1
    runs = [values[k : k + size] for k in range(0, len(values), size)]
    return tuple((run[-1][0], sum(y for _, y in run) / len(run)) for run in runs)


def smoothed(values: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The exponential mean over about a hundredth of the points, unbiased at its start; without what is not finite."""
    keep, total, weight, out = 1 - 1 / max(5.0, len(values) / 100), 0.0, 0.0, []
    for x, y in values:
        if math.isfinite(y):
            total, weight = keep * total + y, keep * weight + 1
            out.append((x, total / weight))
    return out


def loss_lines(values: list[tuple[float, float]]) -> list[Line]:
    """The loss (step, loss) of a run: smoothed, and behind it as it was."""
    return [Line("", thinned(smoothed(values))), Line("each step", thinned(values), faint=True)]
