"""Precision, recall, density, coverage against a literal statement, and on hand-made sets."""

from __future__ import annotations

import numpy as np
import pytest

from metrics.bench import compare
from siamese_diffusion.metrics.prdc import PrdcMetric, prdc
from siamese_diffusion.metrics.settings import ScoreSettings
from siamese_diffusion.metrics.statistics import Real


def brute_force(x: Real, y: Real, k: int) -> tuple[float, float, float, float]:
    """The four formulas, one loop each."""

    def radius(z: Real, i: int) -> float:
        return float(np.sort([np.linalg.norm(z[i] - z[j]) for j in range(len(z)) if j != i])[k - 1])

    n, m = len(x), len(y)
    r_x, r_y = [radius(x, i) for i in range(n)], [radius(y, j) for j in range(m)]
    gap = [[np.linalg.norm(x[i] - y[j]) for j in range(m)] for i in range(n)]
    precision = np.mean([any(gap[i][j] <= r_x[i] for i in range(n)) for j in range(m)])
    recall = np.mean([any(gap[i][j] <= r_y[j] for j in range(m)) for i in range(n)])
    density = sum(gap[i][j] <= r_x[i] for i in range(n) for j in range(m)) / (k * m)
    coverage = np.mean([any(gap[i][j] <= r_x[i] for j in range(m)) for i in range(n)])
    return float(precision), float(recall), float(density), float(coverage)


@pytest.mark.parametrize(("n", "m", "k", "shift"), [(25, 20, 3, 0.0), (14, 30, 5, 1.0)])
def test_scores_equal_brute_force(n: int, m: int, k: int, shift: float) -> None:
    rng = np.random.default_rng(n)
    x, y = rng.normal(size=(n, 4)), rng.normal(size=(m, 4)) * 0.8 + shift
    found = prdc(x, y, k)
    means = [float(v.mean()) for v in (found.precision, found.recall, found.density)]
    assert (*means, float(found.coverage.mean())) == pytest.approx(brute_force(x, y, k))


def test_a_set_against_itself_is_perfect() -> None:
    x = np.random.default_rng(0).normal(size=(30, 3))
    found = prdc(x, x, 4)
    assert float(found.precision.mean()) == float(found.recall.mean()) == 1.0
    assert float(found.coverage.mean()) == 1.0


def test_sets_far_apart_score_nothing() -> None:
    x = np.random.default_rng(1).normal(size=(30, 3))
    found = prdc(x, x + 100, 3)
    assert not any(v.any() for v in (found.precision, found.recall, found.density, found.coverage))


def test_one_real_mode_left_out_lowers_recall_and_coverage_but_not_precision() -> None:
    rng = np.random.default_rng(2)
    x = np.concatenate([rng.normal(size=(40, 2)), rng.normal(size=(40, 2)) + 50])
    y = rng.normal(size=(40, 2)) * 0.7
    found = prdc(x, y)
    assert float(found.precision.mean()) > 0.95
    assert float(found.recall.mean()) <= 0.5
    assert float(found.coverage.mean()) <= 0.5


def test_metric_gives_four_values_and_needs_one_image_more_than_neighbours() -> None:
    rng = np.random.default_rng(3)
    settings = ScoreSettings(neighbours=3)
    comparison = compare(rng.normal(size=(20, 3)), rng.normal(size=(15, 3)), settings)
    found = PrdcMetric().measure(comparison, intervals=True)
    assert [f.name for f in found] == ["precision", "recall", "density", "coverage"]
    assert all(f.interval is not None and f.higher_is_better for f in found)
    assert PrdcMetric().least(settings) == 4
