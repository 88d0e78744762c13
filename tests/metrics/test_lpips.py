"""Which pairs the LPIPS metrics average; the distance itself is tested with its network."""

from __future__ import annotations

import numpy as np
import pytest

from metrics.bench import GivenBench, compare
from siamese_diffusion.core.errors import DataError
from siamese_diffusion.metrics.base import Comparison
from siamese_diffusion.metrics.lpips import LpipsCross, LpipsDiversity, LpipsPaired
from siamese_diffusion.metrics.settings import ScoreSettings

X = np.array([[0.0], [10.0], [20.0]])


def asked(comparison: Comparison) -> list[tuple[str, str]]:
    bench = comparison.bench
    assert isinstance(bench, GivenBench)
    return [(a.mask_stem, b.mask_stem) for a, b in bench.asked]


def test_paired_takes_the_real_image_of_each_mask() -> None:
    y = np.array([[21.0], [12.0], [3.0], [24.0]])
    comparison = compare(X, y, masks=["m2", "m1", "m0", "m2"])
    (found,) = LpipsPaired().measure(comparison, intervals=True)
    assert found.value == (1 + 2 + 3 + 4) / 4
    assert found.higher_is_better is False
    assert found.details["averaged"] == 4


def test_diversity_averages_within_masks_first_and_leaves_single_images_out() -> None:
    y = np.array([[0.0], [3.0], [9.0], [5.0], [6.0], [50.0]])
    comparison = compare(X, y, masks=["m0", "m0", "m0", "m1", "m1", "m2"])
    (found,) = LpipsDiversity().measure(comparison, intervals=False)
    assert found.value == ((3 + 9 + 6) / 3 + 1) / 2
    assert found.higher_is_better
    assert asked(comparison) == [("m0", "m0")] * 3 + [("m1", "m1")]


def test_diversity_of_single_images_is_refused_with_their_number() -> None:
    with pytest.raises(DataError, match=r"each of the 3 masks of 'synthetic' has a single image"):
        LpipsDiversity().measure(compare(X, X), intervals=False)


def test_cross_takes_seeded_pairs_without_repeats() -> None:
    rng = np.random.default_rng(0)
    comparison = compare(rng.random((6, 1)), rng.random((5, 1)), ScoreSettings(lpips_pairs=20))
    LpipsCross().measure(comparison, intervals=True)
    first = asked(comparison)
    assert len(first) == len(set(first)) == 20
    all_of_them = compare(X, X, ScoreSettings(lpips_pairs=500))
    (found,) = LpipsCross().measure(all_of_them, intervals=False)
    assert found.details["averaged"] == 9
    assert found.value == pytest.approx(np.abs(X - X.T).mean())


def test_floor_is_random_pairs_of_different_real_images() -> None:
    comparison = compare(X, X, ScoreSettings(lpips_floor_pairs=30))
    floor = LpipsPaired().floor(comparison)
    pairs = asked(comparison)
    assert len(pairs) == 30
    assert all(a != b for a, b in pairs)
    assert floor["lpips"] == pytest.approx(
        np.mean([abs(int(a[1]) - int(b[1])) * 10 for a, b in pairs])
    )
    assert LpipsCross().floor(comparison) == {"lpips-cross": floor["lpips"]}
    assert LpipsDiversity().floor(comparison) == {"lpips-diversity": floor["lpips"]}
