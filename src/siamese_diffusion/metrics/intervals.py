"""Bootstrap over images: how much a value moves with the images that happened to be drawn.

Resampling with replacement repeats images, which shifts most metrics upwards. Therefore the spread
of the draws about their own mean is put around the value, not their raw percentiles.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from siamese_diffusion.core.seeding import derive_seed
from siamese_diffusion.metrics.statistics import Real

LEVEL: Final = 0.95
Interval = tuple[float, float]


def draw_counts(n: int, draws: int, seed: int, *stream: str) -> Real:
    """How often each of `n` images is in each bootstrap sample, (draws, n) float64."""
    rng = np.random.default_rng(derive_seed(seed, "bootstrap", *stream))
    return rng.multinomial(n, np.full(n, 1 / n), size=draws).astype(np.float64)


def centred_interval(value: float, draws: Real) -> Interval:
    """The 95 % interval of the draws, moved so that their mean lies on the value."""
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    offset = value - draws.mean()
    return float(low + offset), float(high + offset)


def mean_interval(values: Real, draws: int, seed: int, *stream: str) -> Interval:
    """Interval of the mean of one value per image, (n,)."""
    counts = draw_counts(len(values), draws, seed, *stream)
    return centred_interval(float(values.mean()), counts @ values / len(values))
