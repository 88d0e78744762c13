"""Share of the other set among nearest neighbours: the number printed with a t-SNE picture.

Taken in feature space, not in the plot. Sets of one distribution reach m / (n + m - 1), separated
ones 0. Source of the picture: Fig. 4 of the paper, which states no number.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from siamese_diffusion.metrics.base import Comparison, Measurement, Metric
from siamese_diffusion.metrics.intervals import mean_interval
from siamese_diffusion.metrics.neighbours import nearest
from siamese_diffusion.metrics.statistics import Features, Real

NEIGHBOURS: Final = 10


def mixing_of_each(x: Features, y: Features, k: int = NEIGHBOURS) -> Real:
    """Share of the other set among the k neighbours of each of the n + m images, (n + m,).

    Raises:
        ValueError: If there are k images or fewer in all.
    """
    union = np.concatenate([np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)])
    is_synthetic = np.arange(len(union)) >= len(x)
    found, _ = nearest(union, union, k, exclude_self=True)
    return np.asarray((is_synthetic[found] != is_synthetic[:, None]).mean(1), dtype=np.float64)


def mixing(x: Features, y: Features, k: int = NEIGHBOURS) -> float:
    """Mean of `mixing_of_each` over both sets."""
    return float(mixing_of_each(x, y, k).mean())


def expected_mixing(n: int, m: int) -> float:
    """Mixing of two sets of one distribution: mean over all images of other / (all - 1)."""
    return 2 * n * m / ((n + m) * (n + m - 1))


class Mixing(Metric):
    """`mixing` over the features of the fidelity extractor."""

    role = "fidelity"
    smallest = NEIGHBOURS

    def measure(self, comparison: Comparison, *, intervals: bool) -> list[Measurement]:
        x, y = comparison.features(self.role)
        values = mixing_of_each(x, y)
        settings = comparison.settings
        interval = None
        if intervals and settings.bootstrap:
            interval = mean_interval(values, settings.bootstrap, settings.seed, "mixing")
        details = {"neighbours": NEIGHBOURS, "expected": expected_mixing(len(x), len(y))}
        return [
            Measurement("mixing", float(values.mean()), True, interval=interval, details=details)
        ]
