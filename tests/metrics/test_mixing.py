"""Neighbour mixing against brute force and its expected values."""

from __future__ import annotations

import numpy as np
import pytest

from metrics.bench import compare
from siamese_diffusion.metrics.mixing import Mixing, expected_mixing, mixing


def test_mixing_equals_brute_force() -> None:
    rng = np.random.default_rng(0)
    x, y, k = rng.normal(size=(17, 5)), rng.normal(size=(12, 5)) + 0.3, 4
    union = np.concatenate([x, y])
    shares = []
    for i, point in enumerate(union):
        order = sorted(
            (j for j in range(29) if j != i), key=lambda j: float(np.linalg.norm(point - union[j]))
        )
        shares.append(np.mean([(j < 17) != (i < 17) for j in order[:k]]))
    assert mixing(x, y, k) == pytest.approx(float(np.mean(shares)))


def test_separate_gaussians_do_not_mix_and_equal_ones_do_as_expected() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(60, 20))
    assert mixing(x, rng.normal(size=(60, 20)) + 6) == 0.0
    # The reference found 0.503 for its draw; the expected value is 60 / 119.
    assert expected_mixing(60, 60) == pytest.approx(60 / 119)
    draws = [mixing(rng.normal(size=(60, 20)), rng.normal(size=(60, 20))) for _ in range(20)]
    assert float(np.mean(draws)) == pytest.approx(60 / 119, abs=0.01)


def test_expected_mixing_of_unequal_sets_is_met_by_shuffled_labels() -> None:
    rng = np.random.default_rng(2)
    points = rng.normal(size=(60, 3))
    draws = []
    for _ in range(200):
        order = rng.permutation(60)
        draws.append(mixing(points[order[:45]], points[order[45:]]))
    assert float(np.mean(draws)) == pytest.approx(expected_mixing(45, 15), abs=0.01)


def test_metric_tells_the_expected_value_beside_its_own() -> None:
    x = np.random.default_rng(3).normal(size=(30, 4))
    (found,) = Mixing().measure(compare(x[:15], x[15:]), intervals=True)
    assert found.details["expected"] == pytest.approx(15 / 29)
    assert found.interval is not None
