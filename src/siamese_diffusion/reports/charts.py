"""Line and bar charts as inline SVG, and the curves of a training log drawn with them.

Knows log records but no folders. Charts carry a title and a description in words, are told apart
by dashes as well as by colours, and take their fonts from the page.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

Record = Mapping[str, object]
Points = list[tuple[float, float]]

WIDTH: Final = 520
HEIGHT: Final = 250
MOST_POINTS: Final = 400  # points drawn per line; a page holds hundreds of thousands badly
SMOOTHING_SHARE: Final = 1 / 25  # time constant of the smoothed line, as a share of its points
NOT_RECORDED: Final = "not recorded"

# Four terms of Eq. 6: log name, heading, what it is in plain words, colour.
TERMS: Final = (
    ("loss/mask", "Mask loss", "noise predicted from the mask alone (Eq. 7)", "#1f5fa8"),
    ("loss/image", "Image loss", "noise predicted from mask and image together (Eq. 8)", "#a8451f"),
    (
        "loss/consistency",
        "Consistency loss",
        "distance of the mask-only prediction from the better-informed one (Eq. 9)",
        "#1c7350",
    ),
    (
        "loss/augment",
        "Augmentation loss",
        "mask-only prediction on images the model completed itself (Eq. 12)",
        "#77459c",
    ),
)
_COLOURS: Final = ("#222222", "#3b2f8f", "#2674b8", "#16836f", "#a06a00", "#b3362b")
_DASHES: Final = ("", "7 3", "2 3", "9 3 2 3", "4 2", "1 2")
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 22, 12, 42


@dataclass(frozen=True)
class Series:
    """One line: `points` are (step, value), sorted by step; `faint` ones stay in the background."""

    label: str
    points: Points
    colour: str
    dash: str = ""
    faint: bool = False


@dataclass(frozen=True)
class Chart:
    """A chart with what a page writes round it; `svg` is safe markup, the rest plain text."""

    title: str
    caption: str
    svg: str


@dataclass(frozen=True)
class Curves:
    """What a training log shows.

    Attributes:
        losses: One chart for each of the four terms that was logged.
        others: Weights and validation, as far as logged.
        table: (term, first, last, lowest) smoothed values in words, for the charted terms.
        missing: Sentences on what was not recorded.
    """

    losses: tuple[Chart, ...]
    others: tuple[Chart, ...]
    table: tuple[tuple[str, str, str, str], ...]
    missing: tuple[str, ...]


def training_curves(records: Sequence[Record]) -> Curves:
    """Charts of the losses, the weights and the validation of a run's log.

    Args:
        records: Lines of the log, in order; unknown events and keys are ignored.
    """
    losses, table, missing = [], [], []
    steps = [step for r in records if isinstance(step := r.get("step"), int)]
    last_step = float(max(steps, default=0))
    for key, title, meaning, colour in TERMS:
        raw = series_of(records, "train", key)
        points = [(x, y) for x, y in raw if y > 0]  # a logarithmic axis has no zero
        if not points:
            missing.append(f"{title}: {'zero throughout' if raw else NOT_RECORDED}.")
            continue
        smooth = log_smoothed(points)
        ends = [
            f"{value:.3g}" for value in (smooth[0][1], smooth[-1][1], min(y for _, y in smooth))
        ]
        table.append((title, ends[0], ends[1], ends[2]))
        caption = f"{title}: {meaning}."
        if len(points) < len(raw):
            caption += f" {len(raw) - len(points)} of {len(raw)} logged values are zero, not drawn."
        losses.append(
            Chart(
                title,
                caption,
                line_chart(
                    title,
                    [
                        Series("as logged", points, colour, faint=True),
                        Series("smoothed", smooth, colour),
                    ],
                    description=f"{caption} Smoothed: {ends[0]} at first, {ends[1]} at last.",
                    last_step=last_step,
                ),
            )
        )
    others = [
        c for c in (_weights(records, last_step), _validation(records, last_step)) if c is not None
    ]
    titles = {chart.title for chart in others}
    for title in ("Weights", "Validation loss"):
        if title not in titles:
            missing.append(f"{title}: {NOT_RECORDED}.")
    return Curves(tuple(losses), tuple(others), tuple(table), tuple(missing))


def series_of(records: Sequence[Record], event: str, key: str) -> Points:
    """Finite (step, value) points of one key, sorted by step; of equal steps the last counts."""
    found: dict[float, float] = {}
    for record in records:
        step, value = record.get("step"), record.get(key)
        if record.get("event") != event or not isinstance(step, int):
            continue
        if isinstance(value, int | float) and math.isfinite(value):
            found[float(step)] = float(value)
    return sorted(found.items())


def training_speed(records: Sequence[Record]) -> tuple[tuple[str, str], ...]:
    """Speed, peak memory and time of a run in words."""
    speeds = sorted(y for _, y in series_of(records, "train", "samples_per_second"))
    memory = [y for _, y in series_of(records, "train", "peak_memory_mb")]
    speed = f"{speeds[len(speeds) // 2]:,.2f} pairs a second (median)" if speeds else NOT_RECORDED
    return (
        ("Speed", speed),
        ("Peak memory", f"{max(memory):,.0f} MiB" if memory else NOT_RECORDED),
        ("Training time", _duration(records)),
    )


def log_smoothed(points: Points) -> Points:
    """Exponential running mean of the logarithms, corrected for its start; values above 0.

    In the log domain a single high value does not lift the whole line, as it would otherwise.
    """
    keep = 1 - 1 / max(1.0, len(points) * SMOOTHING_SHARE)
    total, weight, smooth = 0.0, 0.0, []
    for x, y in points:
        total = keep * total + (1 - keep) * math.log(y)
        weight = keep * weight + (1 - keep)
        smooth.append((x, math.exp(total / weight)))
    return smooth


def line_chart(
    title: str,
    series: Sequence[Series],
    *,
    description: str,
    last_step: float,
    log: bool = True,
    y_range: tuple[float, float] | None = None,
    legend: bool = False,
) -> str:
    """Lines over the training step as an SVG element.

    Args:
        title: Short name, read by screen readers.
        series: Lines; values above 0 if `log`.
        description: The chart in words.
        last_step: Right end of the step axis, which starts at 0: charts of a run line up.
        log: Logarithmic value axis.
        y_range: Fixed ends of a linear value axis.
        legend: Name the lines at the right.
    """
    right = WIDTH - _RIGHT - (118 if legend else 0)
    ys = [y for s in series for _, y in s.points]
    x_low, x_high = 0.0, max(last_step, 1.0)
    low, high = y_range or _padded(min(ys), max(ys), log)

    def place(x: float, y: float) -> tuple[float, float]:
        share = (
            (math.log(y) - math.log(low)) / (math.log(high) - math.log(low))
            if log
            else (y - low) / (high - low)
        )
        across = (x - x_low) / (x_high - x_low)
        return _LEFT + across * (right - _LEFT), HEIGHT - _BOTTOM - share * (
            HEIGHT - _BOTTOM - _TOP
        )

    parts = []
    for value in log_ticks(low, high) if log else linear_ticks(low, high, 5):
        _, y = place(x_low, value)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(text_at(_LEFT - 7, y + 4, f"{value:g}", "end"))
    for value in linear_ticks(x_low, x_high, 6 if not legend else 4):
        x, _ = place(value, high)
        parts.append(text_at(x, HEIGHT - _BOTTOM + 17, f"{value:,.0f}", "middle"))
    parts.append(text_at((_LEFT + right) / 2, HEIGHT - 6, "training step", "middle"))
    base = HEIGHT - _BOTTOM
    parts.append(f'<line class="axis" x1="{_LEFT}" x2="{right}" y1="{base}" y2="{base}"/>')
    for number, line in enumerate(series):
        places = [place(x, y) for x, y in _thinned(line.points)]
        drawn = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        style = f'stroke="{line.colour}" stroke-dasharray="{line.dash or "none"}"'
        weight = 'stroke-width="1" opacity=".3"' if line.faint else 'stroke-width="2"'
        parts.append(f'<polyline fill="none" {style} {weight} points="{drawn}"/>')
        if len(places) <= 12 and not line.faint:  # few points: show where they are
            parts.extend(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6" fill="{line.colour}"/>'
                for x, y in places
            )
        if legend:
            y = _TOP + 10 + 19 * number
            parts.append(
                f'<line {style} stroke-width="2" x1="{right + 12}" x2="{right + 38}" '
                f'y1="{y - 4}" y2="{y - 4}"/>{text_at(right + 44, y, line.label, "start")}'
            )
    return svg_element(title, description, HEIGHT, parts)


def bar_chart(title: str, bars: Sequence[tuple[str, float]], *, description: str) -> str:
    """Horizontal bars for values from 0 to 1 as an SVG element; values are written out."""
    left, right, parts = 240, WIDTH - 50, []
    for number, (label, value) in enumerate(bars):
        y = 8 + 34 * number
        length = max(0.0, min(1.0, value)) * (right - left)
        parts.append(text_at(left - 10, y + 17, label, "end"))
        parts.append(f'<rect class="track" x="{left}" y="{y}" width="{right - left}" height="24"/>')
        colour = _COLOURS[(2, 4, 3)[number % 3]]
        parts.append(f'<rect x="{left}" y="{y}" width="{length:.1f}" height="24" fill="{colour}"/>')
        parts.append(text_at(right + 8, y + 17, f"{value:.3f}", "start"))
    return svg_element(title, description, 10 + 34 * len(bars), parts)


def log_ticks(low: float, high: float) -> list[float]:
    """Round values within a range: powers of ten, with 2 and 5 between them if there is room."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1,), (1, 3), (1, 2, 5)):
        ticks = [f * 10.0**d for d in decades for f in factors if low <= f * 10.0**d <= high]
        if len(ticks) >= 3:
            return ticks[:: -(-len(ticks) // 7)]
    return linear_ticks(low, high, 4)


def linear_ticks(low: float, high: float, most: int) -> list[float]:
    """At most about `most` round values within a range."""
    rough = (high - low) / most
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(f * unit for f in (1, 2, 2.5, 5, 10) if f * unit >= rough)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def _weights(records: Sequence[Record], last_step: float) -> Chart | None:
    lines = [
        ("weight/image", "image control", _COLOURS[5], ""),
        ("weight/augment", "augmentation", _COLOURS[3], _DASHES[1]),
    ]
    series = [
        Series(label, points, colour, dash)
        for key, label, colour, dash in lines
        if (points := series_of(records, "train", key))
    ]
    if not series:
        return None
    caption = (
        "Weights: how strongly the real image guides training (Eq. 5), and the share of samples "
        "that are also trained on a self-completed image (Eq. 13)."
    )
    top = max(1.0, *(y for line in series for _, y in line.points))
    svg = line_chart(
        "Weights",
        series,
        description=caption,
        last_step=last_step,
        log=False,
        y_range=(0.0, top),
        legend=True,
    )
    return Chart("Weights", caption, svg)


def _validation(records: Sequence[Record], last_step: float) -> Chart | None:
    keys = {key for r in records if r.get("event") == "validate" for key in r}
    bins = sorted((k for k in keys if k.startswith("loss/t")), key=_first_number)
    series = []
    for number, key in enumerate(["loss/mean", *bins]):
        points = [(x, y) for x, y in series_of(records, "validate", key) if y > 0]
        if points:
            ends = [end.lstrip("0") or "0" for end in key.removeprefix("loss/t").split("-")]
            label = f"t {'–'.join(ends)}" if number else "mean"
            style = number % len(_COLOURS)
            series.append(Series(label, points, _COLOURS[style], _DASHES[style]))
    if not series:
        return None
    caption = (
        "Validation loss at fixed noise, by timestep t: low t adds little noise (fine detail), "
        "high t much (layout)."
    )
    svg = line_chart(
        "Validation loss", series, description=caption, last_step=last_step, legend=True
    )
    return Chart("Validation loss", caption, svg)


def _duration(records: Sequence[Record]) -> str:
    """Sum over the processes of a run, each of which counts its seconds from its own start."""
    total, last = 0.0, 0.0
    for record in records:
        seconds = record.get("seconds")
        if isinstance(seconds, int | float) and math.isfinite(seconds):
            total += seconds - last if seconds >= last else seconds
            last = float(seconds)
    if not total:
        return NOT_RECORDED
    hours, rest = divmod(round(total), 3600)
    return f"{hours} h {rest // 60:02d} min" if hours else f"{rest // 60} min {rest % 60:02d} s"


def _first_number(key: str) -> tuple[int, str]:
    digits = key.removeprefix("loss/t").partition("-")[0]
    return (int(digits) if digits.isdecimal() else 0, key)


def _padded(low: float, high: float, log: bool) -> tuple[float, float]:
    if log:
        room = max((high / low) ** 0.06, 1.05)
        return low / room, high * room
    room = (high - low) * 0.06 or max(abs(high) * 0.05, 1e-6)
    return low - room, high + room


def _thinned(points: Points) -> Points:
    if len(points) <= MOST_POINTS:
        return points
    step = (len(points) - 1) / (MOST_POINTS - 1)
    return [points[round(i * step)] for i in range(MOST_POINTS)]


def text_at(x: float, y: float, text: str, anchor: str) -> str:
    """A line of text in a chart, escaped; `anchor` is start, middle or end."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def svg_element(
    title: str, description: str, height: int, parts: Sequence[str], *, width: int = WIDTH
) -> str:
    """A whole chart from its parts, with its words for screen readers."""
    name = escape(f"{title}. {description}", quote=True)
    return (
        f'<svg role="img" viewBox="0 0 {width} {height}" aria-label="{name}">'
        + "".join(parts)
        + "</svg>"
    )
