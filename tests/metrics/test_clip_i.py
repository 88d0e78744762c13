"""CLIP-I: reference vectors, and names for encoders that are not CLIP."""

from __future__ import annotations

import numpy as np
import pytest

from metrics.bench import compare
from siamese_diffusion.core.errors import DataError
from siamese_diffusion.metrics.clip_i import (
    ClipI,
    ClipIPaired,
    all_pairs,
    nearest,
    paired,
    unit_rows,
)
from siamese_diffusion.metrics.settings import ScoreSettings

R = np.array([(1, 0, 0), (0.6, 0.8, 0), (0, 1, 0)])
S2 = np.array([(0, 0, 1), (0.8, 0, 0.6)])
S3 = np.array([(1, 0, 0), (0, 1, 0), (0.6, 0, 0.8)])


def test_all_pairs_is_the_mean_of_the_whole_matrix() -> None:
    assert all_pairs(R, S2) == pytest.approx(0.21333333333333335, rel=1e-14)
    assert all_pairs(R, S2) == pytest.approx((R @ S2.T).mean(), rel=1e-14)
    assert all_pairs(S2, R) == pytest.approx(all_pairs(R, S2))


def test_nearest_and_paired_have_the_reference_values() -> None:
    assert nearest(R, S2) == pytest.approx(0.4)
    assert paired(R, S3) == pytest.approx(0.6)
    assert paired(R, R) == pytest.approx(1.0)
    assert paired(R[::-1], S3) != pytest.approx(0.6)


def test_length_of_embeddings_does_not_matter() -> None:
    stretched = R * np.array([[3.0], [0.1], [20.0]])
    assert all_pairs(stretched, S2) == pytest.approx(all_pairs(R, S2))
    assert paired(stretched, S3) == pytest.approx(0.6)


def test_unequal_sets_cannot_be_paired_and_zero_has_no_direction() -> None:
    with pytest.raises(ValueError, match=r"sets of one length, got 3 and 2"):
        paired(R, S2)
    with pytest.raises(ValueError, match=r"embedding 1 is zero everywhere"):
        unit_rows(np.array([[1.0, 0.0], [0.0, 0.0]]))


def test_metric_pairs_by_mask_and_not_by_place() -> None:
    comparison = compare(R, S3, masks=["m2", "m1", "m0"])
    (found,) = ClipIPaired().measure(comparison, intervals=True)
    assert found.name == "clip-i-paired"
    assert found.value == pytest.approx(paired(R[[2, 1, 0]], S3))


def test_metric_refuses_images_of_unknown_masks() -> None:
    comparison = compare(R, S3, masks=["m0", "other", "m1"])
    with pytest.raises(DataError, match=r"1 of 3 images .* no real image of the same mask .*other"):
        ClipIPaired().measure(comparison, intervals=False)


def test_interval_holds_the_value() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.random((40, 4)), rng.random((30, 4))
    (found,) = ClipI().measure(compare(x, y), intervals=True)
    assert found.name == "clip-i"
    assert found.interval is not None
    assert found.interval[0] < found.value < found.interval[1]


def test_floor_of_the_paired_value_is_all_pairs_of_real_halves() -> None:
    x = np.random.default_rng(1).random((20, 4))
    comparison = compare(x, x, ScoreSettings(floor_splits=2))
    halves = [comparison.halves(i).features("similarity") for i in range(2)]
    expected = np.mean([all_pairs(a, b) for a, b in halves])
    assert ClipIPaired().floor(comparison) == {"clip-i-paired": pytest.approx(expected)}


def test_only_clip_may_be_called_clip_i() -> None:
    comparison = compare(R, S3, clip=False, reference=False)
    assert ClipI().measure(comparison, intervals=False)[0].name == "sim_given"
    assert ClipIPaired().measure(comparison, intervals=False)[0].name == "sim_given-paired"
