"""KID, the squared maximum mean discrepancy under k(x, y) = (x.y / d + 1)^3. Lower is better.

Unbiased, so it may be slightly negative. Values are not multiplied by 1,000.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from siamese_diffusion.core.seeding import derive_seed
from siamese_diffusion.metrics.base import Comparison, Measurement, Metric
from siamese_diffusion.metrics.intervals import centred_interval, draw_counts
from siamese_diffusion.metrics.kernels import diagonal_sums, pair_sums
from siamese_diffusion.metrics.statistics import Features, Real

BLOCKS: Final = 100
BLOCK_SIZE: Final = 1000


def cubic_kernel(x: Real, y: Real) -> Real:
    """(x.y / d + 1)^3 of all rows, (a, d) and (b, d) to (a, b)."""
    return np.asarray((x @ y.T / x.shape[1] + 1) ** 3, dtype=np.float64)


def kid(x: Features, y: Features) -> float:
    """The unbiased estimate over all pairs of (n, d) and (m, d).

    Raises:
        ValueError: If a set has fewer than two rows or the widths differ.
    """
    return float(_weighted(x, y, np.ones((1, len(x))), np.ones((1, len(y))))[0])


def kid_biased(x: Features, y: Features) -> float:
    """The form that keeps the diagonals; not to be reported as KID."""
    _require(x, y)
    n, m = np.ones((1, len(x))), np.ones((1, len(y)))
    xx, yy, xy = (
        float(pair_sums(cubic_kernel, a, b, wa, wb)[0])
        for a, b, wa, wb in ((x, x, n, n), (y, y, m, m), (x, y, n, m))
    )
    return xx / len(x) ** 2 + yy / len(y) ** 2 - 2 * xy / (len(x) * len(y))


def kid_blocks(
    x: Features, y: Features, *, blocks: int = BLOCKS, size: int = BLOCK_SIZE, seed: int = 0
) -> tuple[float, float]:
    """Mean and population standard deviation over random blocks, as libraries print.

    Args:
        x: (n, d).
        y: (m, d).
        blocks: How many.
        size: Images of each set in a block, drawn without replacement.
        seed: Of the draws.

    Raises:
        ValueError: If a set is smaller than a block.
    """
    if min(len(x), len(y)) < size:
        raise ValueError(f"blocks of {size} need as many rows, got {len(x)} and {len(y)}")
    weights = []
    for z, side in ((x, "real"), (y, "synthetic")):
        chosen = np.zeros((blocks, len(z)))
        rng = np.random.default_rng(derive_seed(seed, "kid", side))
        for row in chosen:
            row[rng.permutation(len(z))[:size]] = 1
        weights.append(chosen)
    values = _weighted(x, y, weights[0], weights[1])
    return float(values.mean()), float(values.std())


class Kid(Metric):
    """`kid` over the features of the fidelity extractor, with the block estimate beside it."""

    role = "fidelity"
    smallest = 2

    def measure(self, comparison: Comparison, *, intervals: bool) -> list[Measurement]:
        x, y = comparison.features(self.role)
        settings = comparison.settings
        value = kid(x, y)
        if not intervals:
            return [Measurement("kid", value, False)]
        size = min(settings.kid_block_size, len(x), len(y))
        mean, deviation = kid_blocks(
            x, y, blocks=settings.kid_blocks, size=size, seed=settings.seed
        )
        interval = None
        if settings.bootstrap:
            counts = [
                draw_counts(len(z), settings.bootstrap, settings.seed, "kid", side)
                for z, side in ((x, "real"), (y, "synthetic"))
            ]
            interval = centred_interval(value, _weighted(x, y, counts[0], counts[1]))
        details = {
            "block_mean": mean,
            "block_deviation": deviation,
            "blocks": settings.kid_blocks,
            "block_size": size,
        }
        return [Measurement("kid", value, False, interval=interval, details=details)]


def _weighted(x: Features, y: Features, w_x: Real, w_y: Real) -> Real:
    """The estimate for every row of weights, over pairs of different images only, (B,)."""
    _require(x, y)

    def within(z: Features, w: Real) -> Real:
        same = diagonal_sums(lambda rows: (np.square(rows).sum(1) / rows.shape[1] + 1) ** 3, z, w)
        pairs = np.square(w.sum(1)) - np.square(w).sum(1)
        return np.asarray((pair_sums(cubic_kernel, z, z, w, w) - same) / pairs, dtype=np.float64)

    across = pair_sums(cubic_kernel, x, y, w_x, w_y) / (w_x.sum(1) * w_y.sum(1))
    return np.asarray(within(x, w_x) + within(y, w_y) - 2 * across, dtype=np.float64)


def _require(x: Features, y: Features) -> None:
    if min(len(x), len(y)) < 2:
        raise ValueError(f"KID needs 2 rows in each set, got {len(x)} and {len(y)}")
    if x.shape[1] != y.shape[1]:
        raise ValueError(
            f"features are {x.shape[1]} and {y.shape[1]} wide; KID needs one width for both"
        )
