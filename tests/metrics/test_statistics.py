"""Streamed statistics equal those of the whole matrix."""

from __future__ import annotations

import numpy as np
import pytest

from siamese_diffusion.metrics.statistics import RunningStatistics, blocks, statistics


@pytest.mark.parametrize("parts", [[50], [1] * 50, [7, 0, 20, 23], [49, 1]])
def test_any_blocks_give_the_mean_and_covariance_of_all_rows(parts: list[int]) -> None:
    x = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    running = RunningStatistics()
    start = 0
    for size in parts:
        running.add(x[start : start + size])
        start += size
    found = running.result()
    rows = x.astype(np.float64)
    assert found.n == 50
    np.testing.assert_allclose(found.mean, rows.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.covariance, np.cov(rows, rowvar=False), rtol=1e-12)


def test_features_far_from_zero_lose_no_digits() -> None:
    x = np.random.default_rng(1).normal(size=(200, 3)) + 1e7
    running = RunningStatistics()
    for block in blocks(x, 16):
        running.add(block)
    np.testing.assert_allclose(running.result().covariance, np.cov(x, rowvar=False), rtol=1e-6)
    np.testing.assert_allclose(statistics(x).covariance, np.cov(x, rowvar=False), rtol=1e-6)


@pytest.mark.parametrize("n", [0, 1])
def test_fewer_than_two_rows_have_no_covariance(n: int) -> None:
    with pytest.raises(ValueError, match=rf"needs 2 rows, got {n}"):
        statistics(np.zeros((n, 3)))
