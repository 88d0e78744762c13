"""Bootstrap draws and intervals."""

from __future__ import annotations

import numpy as np
import pytest

from siamese_diffusion.metrics.intervals import centred_interval, draw_counts, mean_interval


def test_every_draw_has_as_many_images_as_the_set() -> None:
    counts = draw_counts(20, 50, 0, "a")
    assert counts.shape == (50, 20)
    assert (counts.sum(1) == 20).all()
    np.testing.assert_array_equal(counts, draw_counts(20, 50, 0, "a"))
    assert (counts != draw_counts(20, 50, 0, "b")).any()
    assert (counts != draw_counts(20, 50, 1, "a")).any()


def test_interval_is_moved_so_that_the_mean_of_the_draws_lies_on_the_value() -> None:
    draws = np.linspace(10, 20, 101)  # mean 15, 95 % from 10.25 to 19.75
    assert centred_interval(3.0, draws) == pytest.approx((-1.75, 7.75))


def test_interval_of_a_mean_is_that_of_the_normal_law() -> None:
    values = np.random.default_rng(0).normal(5.0, 2.0, size=400)
    low, high = mean_interval(values, 2000, 0, "x")
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.08)
    assert low < values.mean() < high
