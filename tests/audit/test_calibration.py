"""The threshold keeps its rate whatever the distribution; the verdict keeps its own."""

from __future__ import annotations

import numpy as np
import pytest

from siamese_diffusion.audit.calibration import (
    VERDICT_RATE,
    calibrate,
    chance_of,
    false_alarms,
    flags,
)
from siamese_diffusion.core.errors import DataError
from siamese_diffusion.metrics.statistics import Real


def test_threshold_is_the_order_statistic_of_the_rate() -> None:
    holdout = np.arange(1.0, 100.0)[::-1].copy()  # 99 images
    found = calibrate(holdout, 0.05)
    assert (found.distance, found.rank, found.rate) == (5.0, 5, 0.05)
    assert flags(np.array([4.9, 5.0, 0.0]), found).tolist() == [True, False, True]


def test_rate_that_the_hold_out_cannot_support_is_refused() -> None:
    assert calibrate(np.ones(99), 0.01).rank == 1
    with pytest.raises(
        DataError, match=r"a rate of 0.01 needs 99 hold-out images, got 98"
    ) as caught:
        calibrate(np.ones(98), 0.01)
    assert caught.value.hint == "give more, or a rate of at least 0.0101"


@pytest.mark.parametrize("law", ["normal", "pareto"])
def test_honest_images_are_flagged_at_no_more_than_the_rate(law: str) -> None:
    rng = np.random.default_rng(0)

    def draw(n: int) -> Real:
        return rng.normal(size=n) if law == "normal" else rng.pareto(1.5, n)

    shares = [flags(draw(50), calibrate(draw(59), 0.05)).mean() for _ in range(2000)]
    assert np.mean(shares) == pytest.approx(0.05, abs=0.005)


def test_chance_of_a_count_equals_its_frequency() -> None:
    rng = np.random.default_rng(1)
    threshold = calibrate(np.arange(19.0), 0.1)
    counts = np.array(
        [flags(rng.random(30), calibrate(rng.random(19), 0.1)).sum() for _ in range(4000)]
    )
    for flagged in (1, 3, 6):
        expected = float((counts >= flagged).mean())
        assert chance_of(flagged, 30, threshold) == pytest.approx(expected, abs=0.03)
    assert chance_of(0, 30, threshold) == 1.0


def test_verdict_accuses_honest_sets_at_no_more_than_its_rate() -> None:
    rng = np.random.default_rng(2)
    accused = 0
    for _ in range(1000):
        threshold = calibrate(rng.random(99), 0.02)
        found = int(flags(rng.random(80), threshold).sum())
        accused += chance_of(found, 80, threshold) < VERDICT_RATE
    assert accused / 1000 <= VERDICT_RATE + 0.015


def test_halves_of_the_hold_out_measure_the_false_alarms() -> None:
    distances = np.random.default_rng(3).random(200)
    measured = false_alarms(distances, 0.02, 0)
    assert measured is not None
    assert measured <= VERDICT_RATE + 0.03
    assert false_alarms(distances[:40], 0.02, 0) is None
