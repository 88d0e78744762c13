"""FID: reference vectors, closed forms, agreement of its three forms and with torchmetrics."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import linalg

from metrics.bench import compare
from siamese_diffusion.metrics import fid as module
from siamese_diffusion.metrics.fid import (
    Fid,
    fid,
    fid_of_statistics,
    fid_resampled,
    fid_singular,
)
from siamese_diffusion.metrics.intervals import draw_counts
from siamese_diffusion.metrics.settings import ScoreSettings
from siamese_diffusion.metrics.statistics import Real, Statistics, statistics

SQUARE = np.array([(0, 0), (2, 0), (0, 2), (2, 2)], float)
P = np.array([(1, 2, 0), (0, 1, 1), (2, 0, 1), (1, 1, 1), (3, 1, 2)], float)
Q = np.array([(0, 0, 1), (1, 3, 0), (2, 2, 2), (1, 0, 1)], float)
U = np.eye(5)[:3]
W = np.concatenate([np.eye(5)[3:], np.ones((1, 5))])


def gaussian(mean: object, covariance: object) -> Statistics:
    return Statistics(10, np.array(mean, float), np.array(covariance, float))


def cloud(n: int, d: int, seed: int, shift: float = 0.0) -> Real:
    return np.random.default_rng(seed).normal(size=(n, d)) @ np.diag(np.arange(1, d + 1)) + shift


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        (gaussian([0], [[1]]), gaussian([3], [[4]]), 10),
        (
            gaussian([0, 1, -2], np.diag([1, 4, 9])),
            gaussian([1, 1, 2], np.diag([4, 1, 16])),
            20,
        ),
        (gaussian([0, 0], [[2, 1], [1, 2]]), gaussian([1, 2], np.diag([1, 3])), 5.516685226452118),
        (gaussian([0, 0], [[2, 1], [1, 2]]), gaussian([1, 2], [[2, 1], [1, 2]]), 5),
        (gaussian(np.zeros(300), np.eye(300)), gaussian(np.ones(300), np.eye(300)), 300),
    ],
    ids=["F1", "F2", "F3", "F3b", "F7 at 300"],
)
def test_gaussians_have_the_reference_distance(
    x: Statistics, y: Statistics, expected: float
) -> None:
    assert fid_of_statistics(x, y) == pytest.approx(expected, rel=1e-12)
    assert fid_of_statistics(y, x) == pytest.approx(expected, rel=1e-12)


@pytest.mark.slow
def test_unit_gaussians_of_2048_features_are_2048_apart() -> None:
    x, y = gaussian(np.zeros(2048), np.eye(2048)), gaussian(np.ones(2048), np.eye(2048))
    assert fid_of_statistics(x, y) == pytest.approx(2048, rel=1e-12)


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        (SQUARE, SQUARE + 1, 2),
        (SQUARE, 2 * SQUARE, 14 / 3),
        (P, Q, 1.3664801079015),
        (U, W, 32 / 9),
    ],
    ids=["F4a", "F4b", "F5", "F6"],
)
def test_point_sets_have_the_reference_distance(x: Real, y: Real, expected: float) -> None:
    assert fid_singular(x, y) == pytest.approx(expected, rel=1e-12)
    assert fid_singular(y, x) == pytest.approx(expected, rel=1e-12)
    # The square root of an eigenvalue that is zero but for rounding costs half of the digits.
    assert fid_of_statistics(statistics(x), statistics(y)) == pytest.approx(expected, abs=1e-7)


def test_a_set_is_at_zero_from_itself() -> None:
    x = cloud(40, 60, 0)
    assert abs(fid_singular(x, x)) < 1e-8
    assert abs(fid_singular(x, x[::-1])) < 1e-8
    assert abs(fid_of_statistics(statistics(x), statistics(x))) < 1e-3 * float(x.var(0).sum())


def test_rotation_and_shift_of_both_sets_change_nothing() -> None:
    x, y = cloud(30, 6, 1), cloud(25, 6, 2, shift=0.5)
    turn = linalg.qr(np.random.default_rng(3).normal(size=(6, 6)))[0]
    assert fid_singular(x @ turn + 7, y @ turn + 7) == pytest.approx(fid_singular(x, y))


def test_the_two_forms_agree_and_the_cheaper_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = cloud(60, 8, 4), cloud(50, 8, 5, shift=1)
    expected = fid_singular(x, y)
    assert fid(x, y) == expected
    monkeypatch.setattr(module, "SINGULAR_MOST", 20)
    assert fid(x, y) == fid_of_statistics(statistics(x), statistics(y))
    assert fid(x, y) == pytest.approx(expected, rel=1e-10)


def test_resampled_values_are_those_of_the_drawn_rows() -> None:
    x, y = cloud(30, 5, 6) + 100, cloud(20, 5, 7, shift=101)
    n, m = draw_counts(30, 4, 0, "a"), draw_counts(20, 4, 0, "b")
    found = fid_resampled(x, y, n, m)
    for draw in range(4):
        rows = np.repeat(np.arange(30), n[draw].astype(int))
        columns = np.repeat(np.arange(20), m[draw].astype(int))
        assert found[draw] == pytest.approx(fid_singular(x[rows], y[columns]), rel=1e-6)


def test_torchmetrics_agrees_with_an_identity_as_extractor() -> None:
    image = pytest.importorskip("torchmetrics.image.fid")

    class Flat(torch.nn.Module):
        num_features = 12

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1).double()

    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (40, 3, 2, 2)), rng.integers(20, 230, (30, 3, 2, 2))
    metric = image.FrechetInceptionDistance(feature=Flat()).set_dtype(torch.float64)
    metric.update(torch.from_numpy(x.astype(np.uint8)), real=True)
    metric.update(torch.from_numpy(y.astype(np.uint8)), real=False)
    expected = float(metric.compute())
    found = fid(x.reshape(40, -1).astype(float), y.reshape(30, -1).astype(float))
    assert found == pytest.approx(expected, rel=1e-9)


def test_interval_holds_the_value_and_few_images_are_warned_of() -> None:
    settings = ScoreSettings(bootstrap=20)
    (found,) = Fid().measure(compare(cloud(30, 4, 8), cloud(20, 4, 9)), intervals=True)
    assert found.interval is not None
    assert found.interval[0] < found.value < found.interval[1]
    assert found.notes == ()
    wide = compare(cloud(30, 40, 8), cloud(20, 40, 9), settings)
    (few,) = Fid().measure(wide, intervals=True)
    assert "30 and 20 images give covariances of 40 features without full rank" in few.notes[0]


def test_no_interval_is_given_where_it_was_not_asked_for() -> None:
    pair = compare(cloud(9, 4, 0), cloud(9, 4, 1), ScoreSettings(bootstrap=0))
    assert Fid().measure(pair, intervals=True)[0].interval is None
    assert Fid().measure(compare(P, P), intervals=False)[0].interval is None


def test_large_sets_get_no_interval_and_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SINGULAR_MOST", 5)
    (found,) = Fid().measure(compare(cloud(9, 3, 0), cloud(9, 3, 1)), intervals=True)
    assert found.interval is None
    assert found.notes == ("no interval above 5 images",)


def test_sets_that_cannot_be_compared_are_refused_with_their_sizes() -> None:
    with pytest.raises(ValueError, match=r"2 rows in each set, got 1 and 4"):
        fid(SQUARE[:1], SQUARE)
    with pytest.raises(ValueError, match=r"features are 3 and 2 wide"):
        fid(P, SQUARE)
    with pytest.raises(ValueError, match=r"features are 1 and 2 wide"):
        fid_of_statistics(gaussian([0], [[1]]), gaussian([0, 0], np.eye(2)))
