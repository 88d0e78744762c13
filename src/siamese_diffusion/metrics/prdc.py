"""Precision, recall, density and coverage from nearest-neighbour balls. Higher is better.

The ball of an image reaches to its k-th neighbour in its own set; its edge counts as inside.

Sources: precision and recall, Kynkaanniemi et al. 2019, Eq. 2 and 3; density and coverage, Naeem et
al. 2020, Eq. 4 and 5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from siamese_diffusion.metrics.base import Comparison, Measurement, Metric
from siamese_diffusion.metrics.intervals import mean_interval
from siamese_diffusion.metrics.neighbours import nearest, squared_distances
from siamese_diffusion.metrics.settings import ScoreSettings
from siamese_diffusion.metrics.statistics import Features, Real, blocks

NEIGHBOURS: Final = 5


@dataclass(frozen=True)
class Prdc:
    """One value per image; each score is the mean of its array.

    `precision` and `density` are (m,), per synthetic image; `recall` and `coverage` are (n,), per
    real image. All but density are 0 or 1.
    """

    precision: Real
    recall: Real
    density: Real
    coverage: Real


def prdc(x: Features, y: Features, k: int = NEIGHBOURS) -> Prdc:
    """The four scores of synthetic features y (m, d) against real ones x (n, d).

    Raises:
        ValueError: If a set has no k-th neighbour.
    """
    x_radius = nearest(x, x, k, exclude_self=True)[1][:, -1]
    y_radius = nearest(y, y, k, exclude_self=True)[1][:, -1]
    real: Real = np.asarray(x, dtype=np.float64)
    centre = real.mean(0)
    real = real - centre
    precision, density = np.empty(len(y)), np.empty(len(y))
    recall, closest = np.zeros(len(x), dtype=bool), np.full(len(x), np.inf)
    start = 0
    for block in blocks(y, 1024):
        end = start + len(block)
        distance = np.sqrt(squared_distances(block - centre, real))
        inside = distance <= x_radius[None]
        precision[start:end] = inside.any(1)
        density[start:end] = inside.sum(1) / k
        recall |= (distance <= y_radius[start:end, None]).any(0)
        closest = np.minimum(closest, distance.min(0))
        start = end
    return Prdc(precision, recall.astype(float), density, (closest <= x_radius).astype(float))


class PrdcMetric(Metric):
    """`prdc` over the features of the fidelity extractor, as four values.

    Intervals resample the images that are judged; the balls they are judged by stay.
    """

    role = "fidelity"
    smallest = 2

    def least(self, settings: ScoreSettings) -> int:
        return settings.neighbours + 1

    def measure(self, comparison: Comparison, *, intervals: bool) -> list[Measurement]:
        x, y = comparison.features(self.role)
        settings = comparison.settings
        found = prdc(x, y, settings.neighbours)
        measurements = []
        for name in ("precision", "recall", "density", "coverage"):
            values: Real = getattr(found, name)
            interval = None
            if intervals and settings.bootstrap:
                interval = mean_interval(values, settings.bootstrap, settings.seed, name)
            measurements.append(
                Measurement(
                    name,
                    float(values.mean()),
                    True,
                    interval=interval,
                    details={"neighbours": settings.neighbours},
                )
            )
        return measurements
