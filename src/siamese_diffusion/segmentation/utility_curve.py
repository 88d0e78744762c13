"""Does synthetic data help, how much, and how sure is it? Free of torch.

A gain is a paired difference: the same test images and the same seeds, with and without. Its
interval holds two spreads, between images and between seeds, and is widened for the number of
comparisons (Bonferroni), so that more points on a curve do not make a gain more likely.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import t as student

Floats = npt.NDArray[np.float64]
LEVEL = 0.95
NO_GAIN = "no significant gain"


@dataclass(frozen=True)
class Gain:
    """A difference of mean scores with its interval, as fractions."""

    mean: float
    low: float
    high: float

    @property
    def is_significant(self) -> bool:
        return self.low > 0


@dataclass(frozen=True)
class Point:
    """One training set on the curve.

    Attributes:
        arm: What was trained on: "real", a synthetic set's label, or a baseline.
        folds: Synthetic pairs for each real one.
        score: Mean over images and seeds.
        by_seed: Mean over images of each seed.
        gain: Over real pairs alone; None for these themselves.
    """

    arm: str
    folds: float
    score: float
    by_seed: tuple[float, ...]
    gain: Gain | None


@dataclass(frozen=True)
class Curve:
    """All points, and for each synthetic set where it stops to help.

    Attributes:
        points: In the order in which they were trained.
        knees: By label: the smallest number of folds with a significant gain that the best one
            does not significantly exceed; None if no gain is significant.
        n_images: Test images.
        n_seeds: Seeds.
        comparisons: By how many the intervals are widened.
    """

    points: tuple[Point, ...]
    knees: Mapping[str, float | None]
    n_images: int
    n_seeds: int
    comparisons: int


def paired_gain(with_: Floats, without: Floats, *, comparisons: int = 1) -> Gain:
    """Mean of `with_ - without` and its interval.

    Args:
        with_: Scores (seeds, images).
        without: Scores of the same seeds and images.
        comparisons: Number of intervals that shall hold together.

    Returns:
        The interval of Student's t with the variances between images and between seeds added up
        and their degrees of freedom combined by Welch and Satterthwaite. With one seed the spread
        between seeds is unknown and left out.

    Raises:
        ValueError: If the shapes differ or there are fewer than two images.
    """
    if with_.shape != without.shape or with_.ndim != 2 or with_.shape[1] < 2:
        raise ValueError(f"scores of shapes {with_.shape} and {without.shape} cannot be paired")
    difference = with_ - without
    seeds, images = difference.shape
    parts = [(float(difference.mean(0).var(ddof=1)) / images, images - 1)]
    if seeds > 1:
        parts.append((float(difference.mean(1).var(ddof=1)) / seeds, seeds - 1))
    variance = sum(v for v, _ in parts)
    mean = float(difference.mean())
    if variance == 0:
        return Gain(mean, mean, mean)
    freedom = variance**2 / sum(v**2 / n for v, n in parts)
    tail = (1 - LEVEL) / (2 * comparisons)
    half = float(student.ppf(1 - tail, freedom)) * math.sqrt(variance)
    return Gain(mean, mean - half, mean + half)


def make_curve(
    scores: Mapping[tuple[str, float], Floats], *, real: tuple[str, float], baselines: Sequence[str]
) -> Curve:
    """Points, gains and knees.

    Args:
        scores: (seeds, images) by arm and folds.
        real: Key of real pairs alone.
        baselines: Arms that are no synthetic set.
    """
    base = scores[real]
    comparisons = max(1, len(scores) - 1)
    points = []
    for (arm, folds), values in scores.items():
        is_real = (arm, folds) == real
        gain = None if is_real else paired_gain(values, base, comparisons=comparisons)
        by_seed = tuple(float(v) for v in values.mean(1))
        points.append(Point(arm, folds, float(values.mean()), by_seed, gain))
    arms = dict.fromkeys(p.arm for p in points if p.arm not in {real[0], *baselines})
    knees = {arm: _knee(arm, points, scores, comparisons) for arm in arms}
    return Curve(tuple(points), knees, base.shape[1], base.shape[0], comparisons)


def describe_curve(curve: Curve, measure: str) -> str:
    """The curve as a page of Markdown, with its conclusion in words."""
    lines = [
        "# Utility of synthetic pairs",
        "",
        f"Mean {measure} over {curve.n_images} test images and {curve.n_seeds} seeds, in per cent; "
        f"gain over real pairs alone, paired by image and seed, with intervals that hold together "
        f"at 95 % ({curve.comparisons} comparisons).",
    ]
    if curve.n_seeds == 1:
        lines += ["", "With one seed the spread between seeds is unknown: intervals are too short."]
    lines += [
        "",
        "| trained on | folds | score | by seed | gain | interval |",
        "|---|---|---|---|---|---|",
    ]
    for p in curve.points:
        each = ", ".join(f"{100 * v:.2f}" for v in p.by_seed)
        gain, ends = "-", "-"
        if p.gain is not None:
            gain = f"{100 * p.gain.mean:+.2f}"
            ends = f"{100 * p.gain.low:+.2f} to {100 * p.gain.high:+.2f}"
        lines.append(f"| {p.arm} | {p.folds:g} | {100 * p.score:.2f} | {each} | {gain} | {ends} |")
    lines += ["", *(f"- {sentence}" for sentence in conclusions(curve)), ""]
    return "\n".join(lines)


def conclusions(curve: Curve) -> list[str]:
    """One sentence for each synthetic set."""
    found = []
    for arm, knee in curve.knees.items():
        points = [p for p in curve.points if p.arm == arm]
        best = max(points, key=lambda p: p.score)
        assert best.gain is not None
        if knee is None:
            found.append(
                f"{arm}: {NO_GAIN} at any number of folds; the largest is "
                f"{100 * best.gain.mean:+.2f} ({100 * best.gain.low:+.2f} to "
                f"{100 * best.gain.high:+.2f}) at {best.folds:g} folds."
            )
            continue
        gain = next(p.gain for p in points if p.folds == knee)
        assert gain is not None
        found.append(
            f"{arm}: {knee:g} folds are enough, with a gain of {100 * gain.mean:+.2f} "
            f"({100 * gain.low:+.2f} to {100 * gain.high:+.2f}); the best mean is at "
            f"{best.folds:g} folds."
        )
    return found


def _knee(
    arm: str,
    points: Sequence[Point],
    scores: Mapping[tuple[str, float], Floats],
    comparisons: int,
) -> float | None:
    own = sorted((p for p in points if p.arm == arm), key=lambda p: p.folds)
    helping = [p for p in own if p.gain is not None and p.gain.is_significant]
    if not helping:
        return None
    best = max(helping, key=lambda p: p.score)
    for point in helping:
        better = paired_gain(
            scores[(arm, best.folds)], scores[(arm, point.folds)], comparisons=comparisons
        )
        if not better.is_significant:
            return point.folds
    return best.folds
