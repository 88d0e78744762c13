"""Histograms, scatters and curves with intervals as inline SVG, without folders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from siamese_diffusion.reports.charts import WIDTH, linear_ticks, svg_element, text_at

BINS: Final = 20
SYNTHETIC_COLOUR: Final = "#b3582a"
REAL_COLOUR: Final = "#14563b"
SCATTER_SIDE: Final = 260
ARM_COLOURS: Final = ("#b3582a", "#2674b8", "#77459c", "#16836f", "#a06a00")
_ARM_DASHES: Final = ("none", "7 3", "2 3", "9 3 2 3", "4 2")
_LEVEL_COLOURS: Final = ("#14563b", "#5b6772", "#8a949e")
_LEVEL_DASHES: Final = ("none", "6 4", "2 4")
_HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 270, 52, 14, 46, 42


@dataclass(frozen=True)
class Arm:
    """A line of a curve: (x, y, lower end, upper end); `singles` are (x, y) of its parts."""

    label: str
    points: tuple[tuple[float, float, float, float], ...]
    singles: tuple[tuple[float, float], ...] = ()


def histogram(
    title: str,
    synthetic: Sequence[float],
    real: Sequence[float],
    *,
    marks: Sequence[tuple[str, float]],
    axis: str,
    description: str,
) -> str:
    """Values from 0 to 1 of synthetic pairs as bars, of real ones as a line, as an SVG element.

    Args:
        title: Short name, read by screen readers.
        synthetic: At least one value.
        real: May be empty.
        marks: Named values to show as vertical lines.
        axis: What the values are.
        description: The histogram in words.
    """
    made, given = _shares(synthetic), _shares(real)
    top = max(*made, *given, 0.05) * 1.08
    right, base = WIDTH - _RIGHT, _HEIGHT - _BOTTOM

    def place(x: float, y: float) -> tuple[float, float]:
        return _LEFT + x * (right - _LEFT), base - y / top * (base - _TOP)

    parts = []
    for share in linear_ticks(0, top, 4):
        _, y = place(0, share)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(text_at(_LEFT - 7, y + 4, f"{share:.0%}", "end"))
    for value in linear_ticks(0, 1, 5):
        parts.append(text_at(place(value, 0)[0], base + 17, f"{value:g}", "middle"))
    for number, share in enumerate(made):
        (left, y), (end, _) = place(number / BINS, share), place((number + 1) / BINS, 0)
        parts.append(
            f'<rect x="{left + 0.8:.1f}" y="{y:.1f}" width="{end - left - 1.6:.1f}" '
            f'height="{base - y:.1f}" fill="{SYNTHETIC_COLOUR}" opacity=".8"/>'
        )
    if real:
        steps = [
            place((number + side) / BINS, share)
            for number, share in enumerate(given)
            for side in (0, 1)
        ]
        drawn = " ".join(f"{x:.1f},{y:.1f}" for x, y in steps)
        parts.append(
            f'<polyline fill="none" stroke="{REAL_COLOUR}" stroke-width="2" points="{drawn}"/>'
        )
    for name, value in marks:
        x, _ = place(value, 0)
        parts.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{base}" stroke="#4d5966" '
            'stroke-dasharray="3 3"/>'
        )
        anchor = "start" if value < 0.5 else "end"
        parts.append(text_at(x + (4 if value < 0.5 else -4), _TOP + 9, name, anchor))
    parts.append(f'<line class="axis" x1="{_LEFT}" x2="{right}" y1="{base}" y2="{base}"/>')
    parts.append(text_at((_LEFT + right) / 2, _HEIGHT - 6, axis, "middle"))
    parts.append(
        f'<rect x="{_LEFT}" y="8" width="16" height="12" fill="{SYNTHETIC_COLOUR}" opacity=".8"/>'
        + text_at(_LEFT + 22, 18, f"{len(synthetic)} synthetic pairs", "start")
    )
    if real:
        parts.append(
            f'<line x1="{_LEFT + 175}" x2="{_LEFT + 201}" y1="14" y2="14" stroke="{REAL_COLOUR}" '
            'stroke-width="2"/>'
            + text_at(_LEFT + 207, 18, f"{len(real)} real pairs, judged alike", "start")
        )
    parts.append(text_at(_LEFT, _TOP - 8, "share of pairs", "start"))
    return svg_element(title, description, _HEIGHT, parts)


def scatter(
    title: str,
    real: Sequence[tuple[float, float]],
    other: Sequence[tuple[float, float]],
    *,
    limits: tuple[float, float, float, float],
    description: str,
) -> str:
    """Two sets of points in a plane without scales, as an SVG element.

    Args:
        title: Short name, read by screen readers.
        real: Points drawn as circles.
        other: Points drawn as diamonds.
        limits: Lowest and highest x, lowest and highest y: the same for panels to be compared.
        description: The panel in words.
    """
    low_x, high_x, low_y, high_y = limits
    room = SCATTER_SIDE - 20

    def place(point: tuple[float, float]) -> tuple[float, float]:
        across = (point[0] - low_x) / ((high_x - low_x) or 1)
        up = (point[1] - low_y) / ((high_y - low_y) or 1)
        return 10 + across * room, 10 + (1 - up) * room

    parts = [f'<rect class="track" width="{SCATTER_SIDE}" height="{SCATTER_SIDE}" rx="4"/>']
    parts += [
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6" fill="none" stroke="{REAL_COLOUR}" '
        'stroke-width="1.3"/>'
        for x, y in map(place, real)
    ]
    parts += [
        f'<path d="M{x - 3:.1f} {y:.1f}l3-3 3 3-3 3z" fill="{SYNTHETIC_COLOUR}" opacity=".8"/>'
        for x, y in map(place, other)
    ]
    return svg_element(title, description, SCATTER_SIDE, parts, width=SCATTER_SIDE)


def interval_chart(
    title: str,
    arms: Sequence[Arm],
    levels: Sequence[tuple[str, float]],
    *,
    axes: tuple[str, str],
    description: str,
) -> str:
    """Lines with an interval at every point, and levels to hold them against, as an SVG element.

    Args:
        title: Short name, read by screen readers.
        arms: At least one, each with a point.
        levels: Named values, drawn across the chart.
        axes: What runs across and what up.
        description: The chart in words.
    """
    names = [*(name for name, _ in levels), *(arm.label for arm in arms)]
    top = 32 + 17 * ((len(names) + 1) // 2)
    height = top + _HEIGHT - _TOP
    right, base = WIDTH - _RIGHT, height - _BOTTOM
    ys = [y for arm in arms for _, *ends in arm.points for y in ends]
    ys += [y for arm in arms for _, y in arm.singles] + [level for _, level in levels]
    room = (max(ys) - min(ys)) * 0.06 or 1.0
    low, high = min(ys) - room, max(ys) + room
    end = max(x for arm in arms for x, *_ in arm.points) * 1.06 or 1.0

    def place(x: float, y: float) -> tuple[float, float]:
        across, up = x / end, (y - low) / (high - low)
        return _LEFT + across * (right - _LEFT), base - up * (base - top)

    parts, styles = [], []
    for value in linear_ticks(low, high, 5):
        _, y = place(0, value)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(text_at(_LEFT - 7, y + 4, f"{value:g}", "end"))
    for value in linear_ticks(0, end, 6):
        parts.append(text_at(place(value, low)[0], base + 17, f"{value:g}", "middle"))
    parts.append(f'<line class="axis" x1="{_LEFT}" x2="{right}" y1="{base}" y2="{base}"/>')
    for number, (_, level) in enumerate(levels):
        kind = number % len(_LEVEL_COLOURS)
        styles.append(_stroke(_LEVEL_COLOURS[kind], _LEVEL_DASHES[kind]))
        _, y = place(0, level)
        parts.append(f'<line {styles[-1]} x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
    for number, arm in enumerate(arms):
        kind = number % len(ARM_COLOURS)
        styles.append(_stroke(ARM_COLOURS[kind], _ARM_DASHES[kind]))
        shift = 5.0 * (number - (len(arms) - 1) / 2)  # so that intervals do not hide each other
        points = [(*place(x, y), place(x, a)[1], place(x, b)[1]) for x, y, a, b in arm.points]
        singles = [place(x, y) for x, y in arm.singles]
        parts += _drawn(points, singles, ARM_COLOURS[kind], styles[-1], shift)
    for number, (name, style) in enumerate(zip(names, styles, strict=True)):
        left, down = _LEFT + (number % 2) * 230, 14 + 17 * (number // 2)
        parts.append(
            f'<line {style} x1="{left}" x2="{left + 28}" y1="{down - 4}" y2="{down - 4}"/>'
        )
        parts.append(text_at(left + 34, down, name, "start"))
    parts.append(text_at(_LEFT - 40, top - 8, axes[1], "start"))
    parts.append(text_at((_LEFT + right) / 2, height - 6, axes[0], "middle"))
    return svg_element(title, description, height, parts)


def _stroke(colour: str, dash: str) -> str:
    return f'stroke="{colour}" stroke-dasharray="{dash}" stroke-width="2"'


def _drawn(
    points: Sequence[tuple[float, float, float, float]],
    singles: Sequence[tuple[float, float]],
    colour: str,
    style: str,
    shift: float,
) -> list[str]:
    """An arm in the chart's coordinates: a line, its parts, and means with their intervals."""
    line = " ".join(f"{x + shift:.1f},{y:.1f}" for x, y, *_ in points)
    parts = [f'<polyline fill="none" {style} points="{line}"/>']
    parts += [
        f'<circle cx="{x + shift:.1f}" cy="{y:.1f}" r="2" fill="{colour}" opacity=".35"/>'
        for x, y in singles
    ]
    for x, y, lower, upper in points:
        at = x + shift
        parts.append(
            f'<path fill="none" stroke="{colour}" stroke-width="1.4" d="M{at - 4:.1f} {upper:.1f}h8'
            f'm-4 0V{lower:.1f}m-4 0h8"/>'
            f'<circle cx="{at:.1f}" cy="{y:.1f}" r="3.6" fill="{colour}"/>'
        )
    return parts


def _shares(values: Sequence[float]) -> list[float]:
    """Share of the values in each of `BINS` equal bins from 0 to 1."""
    counts = [0] * BINS
    for value in values:
        counts[min(int(value * BINS), BINS - 1)] += 1
    return [count / max(1, len(values)) for count in counts]
