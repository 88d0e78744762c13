"""Means and intervals over seeds, and the table they stand in; knows nothing of how they arose."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy import stats

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean over seeds with the half width of its confidence interval.

    Attributes:
        mean: Of the values.
        half: Half width under Student's t; None with a single value.
        n: Number of values.
    """

    mean: float
    half: float | None
    n: int

    def text(self, digits: int = 3) -> str:
        """`mean ± half`, or the mean alone."""
        shown = f"{self.mean:.{digits}f}"
        return shown if self.half is None else f"{shown} ± {self.half:.{digits}f}"


@dataclass(frozen=True)
class Row:
    """One method: values of each score and cost, one per seed, by name."""

    generator: str
    scores: Mapping[str, Sequence[float]]
    costs: Mapping[str, Sequence[float]]


# name -> (heading, digits, factor)
COSTS: dict[str, tuple[str, int, float]] = {
    "trained_parameters": ("trained, M", 2, 1e-6),
    "step_seconds": ("update, s", 3, 1.0),
    "peak_memory_mb": ("memory, MB", 0, 1.0),
    "sampling_seconds": ("sampling, s/image", 3, 1.0),
}


def interval(values: Sequence[float]) -> Interval:
    """Mean and 95 % interval of independent values (Student's t with n - 1 degrees of freedom)."""
    n = len(values)
    mean = sum(values) / n
    if n < 2:
        return Interval(mean, None, n)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / (n - 1))
    quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1))
    return Interval(mean, quantile * deviation / math.sqrt(n), n)


def differences(rows: Sequence[Row], reference: str, score: str) -> dict[str, Interval]:
    """Each method less `reference`, seed by seed, for the seeds both have."""
    by_name = {row.generator: row.scores.get(score, ()) for row in rows}
    if not by_name.get(reference):
        return {}
    return {
        name: interval([a - b for a, b in zip(values, by_name[reference], strict=False)])
        for name, values in by_name.items()
        if name != reference and values
    }


def markdown(
    rows: Sequence[Row], headings: Mapping[str, tuple[str, bool]], *, reference: str | None = None
) -> str:
    """The table of all methods, and the differences to `reference` in every score.

    Args:
        rows: In the order of the table.
        headings: Score to its heading and whether more is better.
        reference: The method the others are held against.
    """
    shown = [name for name in headings if any(row.scores.get(name) for row in rows)]
    head = ["method", *(f"{headings[n][0]} {'↑' if headings[n][1] else '↓'}" for n in shown)]
    head += [heading for heading, _, _ in COSTS.values()]
    body = []
    for row in rows:
        cells = [row.generator]
        cells += [_score_cell(row.scores.get(name, ())) for name in shown]
        cells += [
            _cost_cell(row.costs.get(n, ()), digits, f) for n, (_, digits, f) in COSTS.items()
        ]
        body.append(cells)
    parts = [_grid(head, body)]
    if reference is not None:
        for name in shown:
            found = differences(rows, reference, name)
            if found:
                title = [f"{headings[name][0]}, less {reference}", "difference"]
                parts.append(_grid(title, [[k, v.text()] for k, v in found.items()]))
    counts = {len(values) for row in rows for values in row.scores.values()}
    seeds = " to ".join(str(n) for n in sorted({min(counts), max(counts)})) if counts else "0"
    parts.append(
        f"Mean ± half width of the 95 % interval over {seeds} seeds (Student's t; none for a "
        "single seed). Costs are means over seeds."
    )
    return "\n\n".join(parts) + "\n"


def _score_cell(values: Sequence[float]) -> str:
    return interval(values).text() if values else "-"


def _cost_cell(values: Sequence[float], digits: int, factor: float) -> str:
    # without interval: the spread of a cost is the machine's, not the method's
    return f"{interval(values).mean * factor:.{digits}f}" if values else "-"


def _grid(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
