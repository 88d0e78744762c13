"""CLIP-I, mean cosine between CLIP embeddings of real and synthetic images. Higher is better.

Which pairs are averaged is a choice that the paper leaves open, so each has its own name. Any two
images of one domain are similar: read a value beside the one of real against real.
"""

from __future__ import annotations

import numpy as np

from siamese_diffusion.metrics.base import Comparison, Measurement, Metric
from siamese_diffusion.metrics.intervals import centred_interval, draw_counts, mean_interval
from siamese_diffusion.metrics.statistics import Features, Real, blocks


def unit_rows(x: Features) -> Real:
    """Rows divided by their length, float64.

    Raises:
        ValueError: If a row is zero.
    """
    rows = np.asarray(x, dtype=np.float64)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    if (length == 0).any():
        raise ValueError(f"embedding {int(np.flatnonzero(length == 0)[0])} is zero everywhere")
    return np.asarray(rows / length, dtype=np.float64)


def all_pairs(x: Features, y: Features) -> float:
    """Mean cosine over every real with every synthetic image (DreamBooth): n and m may differ.

    The mean of all dot products is the dot product of the means, so no matrix is built.
    """
    return float(unit_rows(x).mean(0) @ unit_rows(y).mean(0))


def paired(x: Features, y: Features) -> float:
    """Mean cosine of image i of one set with image i of the other.

    Raises:
        ValueError: If the sets differ in length.
    """
    return float(_cosines(x, y).mean())


def nearest(x: Features, y: Features) -> float:
    """Mean over y of the cosine with the closest of x: a look for copies, not CLIP-I."""
    x, total = unit_rows(x), 0.0
    for block in blocks(unit_rows(y)):
        total += float((block @ x.T).max(1).sum())
    return total / len(y)


class ClipI(Metric):
    """`all_pairs` over the similarity extractor, the default reading of the paper's column."""

    role = "similarity"
    smallest = 1

    def measure(self, comparison: Comparison, *, intervals: bool) -> list[Measurement]:
        x, y = (unit_rows(z) for z in comparison.features(self.role))
        settings = comparison.settings
        value = all_pairs(x, y)
        interval = None
        if intervals and settings.bootstrap:
            means = [
                draw_counts(len(z), settings.bootstrap, settings.seed, "clip-i", side) @ z / len(z)
                for z, side in ((x, "real"), (y, "synthetic"))
            ]
            interval = centred_interval(value, (means[0] * means[1]).sum(1))
        return [Measurement(_name("clip-i", comparison), value, True, interval=interval)]


class ClipIPaired(Metric):
    """`paired` by mask. A copy of the training set would win it."""

    role = "similarity"
    smallest = 1
    is_paired = True
    has_holdout = False

    def measure(self, comparison: Comparison, *, intervals: bool) -> list[Measurement]:
        x, y = comparison.features(self.role)
        real, synthetic = comparison.pairs()
        values = _cosines(x[real], y[synthetic])
        settings = comparison.settings
        interval = None
        if intervals and settings.bootstrap:
            interval = mean_interval(values, settings.bootstrap, settings.seed, "clip-i-paired")
        name = _name("clip-i-paired", comparison)
        return [Measurement(name, float(values.mean()), True, interval=interval)]

    def floor(self, comparison: Comparison) -> dict[str, float]:
        """Two real images never share a mask: all pairs of two halves instead."""
        found = ClipI().floor(comparison)
        return {_name("clip-i-paired", comparison): value for value in found.values()}


def _cosines(x: Features, y: Features) -> Real:
    if len(x) != len(y):
        raise ValueError(f"paired cosines need sets of one length, got {len(x)} and {len(y)}")
    return np.asarray((unit_rows(x) * unit_rows(y)).sum(1), dtype=np.float64)


def _name(name: str, comparison: Comparison) -> str:
    """Only CLIP may be called CLIP-I."""
    return name if comparison.is_clip else name.replace("clip-i", f"sim_{comparison.encoder}")
