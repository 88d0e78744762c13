"""LPIPS over pairs of images. Which pairs are averaged decides what it means, hence the names.

`lpips` pairs a synthetic image with the real one whose mask it was made from; `lpips-cross` takes
random pairs of the two sets; `lpips-diversity` compares synthetic images of one mask with each
other, where higher is better.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np

from siamese_diffusion.core.errors import DataError
from siamese_diffusion.core.seeding import derive_seed
from siamese_diffusion.metrics.base import Comparison, Measurement, Metric, Pair
from siamese_diffusion.metrics.intervals import mean_interval
from siamese_diffusion.metrics.statistics import Real


class LpipsPaired(Metric):
    """Mean over synthetic images of LPIPS to the real image of the same mask. Lower is better."""

    role = "perceptual"
    smallest = 1
    is_paired = True
    has_holdout = False

    def measure(self, comparison: Comparison, *, intervals: bool) -> list[Measurement]:
        real, synthetic = comparison.pairs()
        pairs = [
            (comparison.real.files[r], comparison.synthetic.files[s])
            for r, s in zip(real, synthetic, strict=True)
        ]
        values = comparison.distances(pairs)
        return [_measurement("lpips", values, comparison, intervals, higher_is_better=False)]

    def floor(self, comparison: Comparison) -> dict[str, float]:
        """Two real images never share a mask: random pairs of different real images instead."""
        return {"lpips": _real_pairs(comparison)}


class LpipsCross(Metric):
    """LPIPS of seeded random pairs of a real and a synthetic image. Lower is a closer domain."""

    role = "perceptual"
    smallest = 2

    def measure(self, comparison: Comparison, *, intervals: bool) -> list[Measurement]:
        settings = comparison.settings
        rng = np.random.default_rng(derive_seed(settings.seed, "lpips-cross"))
        n, m = len(comparison.real), len(comparison.synthetic)
        chosen = rng.choice(n * m, size=min(settings.lpips_pairs, n * m), replace=False)
        pairs = [
            (comparison.real.files[int(c) // m], comparison.synthetic.files[int(c) % m])
            for c in sorted(chosen)
        ]
        values = comparison.distances(pairs)
        return [_measurement("lpips-cross", values, comparison, intervals, higher_is_better=False)]

    def floor(self, comparison: Comparison) -> dict[str, float]:
        return {"lpips-cross": _real_pairs(comparison)}


class LpipsDiversity(Metric):
    """Mean LPIPS among synthetic images of one mask, then over masks. Higher is more diverse."""

    role = "perceptual"
    smallest = 2
    has_holdout = False  # real images have a mask each

    def measure(self, comparison: Comparison, *, intervals: bool) -> list[Measurement]:
        groups: dict[str, list[int]] = {}
        for index, file in enumerate(comparison.synthetic.files):
            groups.setdefault(file.mask_stem, []).append(index)
        several = {mask: rows for mask, rows in groups.items() if len(rows) > 1}
        if not several:
            raise DataError(
                f"lpips-diversity compares synthetic images of one mask, but each of the "
                f"{len(groups)} masks of '{comparison.synthetic.root}' has a single image",
                hint="sample with --folds 2 or more, or use --protocol all if only one image a "
                "mask was taken",
            )
        files = comparison.synthetic.files
        pairs = [
            (files[a], files[b]) for rows in several.values() for a, b in combinations(rows, 2)
        ]
        values, per_mask, start = comparison.distances(pairs), [], 0
        for rows in several.values():
            end = start + len(rows) * (len(rows) - 1) // 2
            per_mask.append(values[start:end].mean())
            start = end
        means = np.asarray(per_mask, dtype=np.float64)
        return [
            _measurement("lpips-diversity", means, comparison, intervals, higher_is_better=True)
        ]

    def floor(self, comparison: Comparison) -> dict[str, float]:
        return {"lpips-diversity": _real_pairs(comparison)}


def _measurement(
    name: str, values: Real, comparison: Comparison, intervals: bool, *, higher_is_better: bool
) -> Measurement:
    settings = comparison.settings
    interval = None
    if intervals and settings.bootstrap and len(values) > 1:
        interval = mean_interval(values, settings.bootstrap, settings.seed, name)
    return Measurement(
        name,
        float(values.mean()),
        higher_is_better,
        interval=interval,
        details={"averaged": len(values), "deviation": float(values.std())},
    )


def _real_pairs(comparison: Comparison) -> float:
    """Mean LPIPS of random pairs of different real images, at most `lpips_floor_pairs`."""
    files = comparison.real.files
    settings = comparison.settings
    rng = np.random.default_rng(derive_seed(settings.seed, "lpips-floor"))
    pairs: list[Pair] = []
    while len(pairs) < settings.lpips_floor_pairs:
        order = rng.permutation(len(files))
        pairs += [
            (files[int(a)], files[int(b)]) for a, b in zip(order[0::2], order[1::2], strict=False)
        ]
        if len(order) < 2:
            raise DataError(
                f"'{comparison.real.root}' has {len(files)} image; 2 are needed for real pairs"
            )
    return float(comparison.distances(pairs[: settings.lpips_floor_pairs]).mean())
