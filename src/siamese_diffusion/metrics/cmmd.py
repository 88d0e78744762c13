"""CMMD, a maximum mean discrepancy of normalised CLIP embeddings. Lower is better.

Kernel exp(-|x - y|^2 / 200), factor 1,000, all pairs with the diagonals, as in the official code.
The kernel is close to 1 everywhere, so 1 - k is summed (`expm1`): nothing cancels.

Source: Jayasumana et al., "Rethinking FID", CVPR 2024.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from siamese_diffusion.metrics.base import Comparison, Measurement, Metric
from siamese_diffusion.metrics.clip_i import unit_rows
from siamese_diffusion.metrics.intervals import centred_interval, draw_counts
from siamese_diffusion.metrics.kernels import pair_sums
from siamese_diffusion.metrics.statistics import Features, Real

SIGMA: Final = 10.0
FACTOR: Final = 1000.0
_FEW: Final = 200  # images; below, the bias of about 1.5 / n is no longer small


def one_minus_kernel(x: Real, y: Real) -> Real:
    """1 - exp(-|x - y|^2 / (2 sigma^2)) of all rows, (a, d) and (b, d) to (a, b)."""
    squares = np.square(x).sum(1)[:, None] + np.square(y).sum(1)[None] - 2 * (x @ y.T)
    return np.asarray(-np.expm1(-np.clip(squares, 0, None) / (2 * SIGMA**2)), dtype=np.float64)


def cmmd(x: Features, y: Features) -> float:
    """CMMD of embeddings (n, d) and (m, d); rows are brought to unit length first."""
    x, y = unit_rows(x), unit_rows(y)
    return float(_weighted(x, y, np.ones((1, len(x))), np.ones((1, len(y))))[0])


def cmmd_unbiased(x: Features, y: Features) -> float:
    """The estimate without the diagonals: another number, not the one papers report.

    Raises:
        ValueError: If a set has fewer than two rows.
    """
    if min(len(x), len(y)) < 2:
        raise ValueError(f"unbiased CMMD needs 2 rows in each set, got {len(x)} and {len(y)}")
    x, y = unit_rows(x), unit_rows(y)
    n, m = np.ones((1, len(x))), np.ones((1, len(y)))
    xx = pair_sums(one_minus_kernel, x, x, n, n)[0] / (len(x) * (len(x) - 1))
    yy = pair_sums(one_minus_kernel, y, y, m, m)[0] / (len(y) * (len(y) - 1))
    xy = pair_sums(one_minus_kernel, x, y, n, m)[0] / (len(x) * len(y))
    return float(FACTOR * (2 * xy - xx - yy))


class Cmmd(Metric):
    """`cmmd` over the embeddings of the similarity extractor."""

    role = "similarity"
    smallest = 2

    def measure(self, comparison: Comparison, *, intervals: bool) -> list[Measurement]:
        x, y = (unit_rows(z) for z in comparison.features(self.role))
        value = cmmd(x, y)
        settings = comparison.settings
        interval = None
        if intervals and settings.bootstrap:
            counts = [
                draw_counts(len(z), settings.bootstrap, settings.seed, "cmmd", side)
                for z, side in ((x, "real"), (y, "synthetic"))
            ]
            interval = centred_interval(value, _weighted(x, y, counts[0], counts[1]))
        notes = []
        if min(len(x), len(y)) < _FEW:
            notes.append(
                f"with {min(len(x), len(y))} images the upward bias of CMMD (about 1.5 / n of each "
                "set) is not small"
            )
        details = {"unbiased": cmmd_unbiased(x, y), "sigma": SIGMA, "factor": FACTOR}
        name = "cmmd" if comparison.is_reference_clip else f"cmmd_{comparison.encoder}"
        return [
            Measurement(name, value, False, interval=interval, details=details, notes=tuple(notes))
        ]


def _weighted(x: Features, y: Features, w_x: Real, w_y: Real) -> Real:
    def mean(a: Features, b: Features, wa: Real, wb: Real) -> Real:
        sums = pair_sums(one_minus_kernel, a, b, wa, wb)
        return np.asarray(sums / (wa.sum(1) * wb.sum(1)), dtype=np.float64)

    return np.asarray(
        FACTOR * (2 * mean(x, y, w_x, w_y) - mean(x, x, w_x, w_x) - mean(y, y, w_y, w_y)),
        dtype=np.float64,
    )
