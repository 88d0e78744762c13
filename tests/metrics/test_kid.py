"""KID: exact reference vectors, blocks, bootstrap, torchmetrics."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from metrics.bench import compare
from siamese_diffusion.metrics import kernels
from siamese_diffusion.metrics.kid import Kid, cubic_kernel, kid, kid_biased, kid_blocks
from siamese_diffusion.metrics.settings import ScoreSettings
from siamese_diffusion.metrics.statistics import Real

A = np.array([(1, 0), (0, 1), (1, 1)], float)
B = np.array([(2, 0), (0, 2), (1, 2)], float)
SQUARE = np.array([(0, 0), (2, 0), (0, 2), (2, 2)], float)
P = np.array([(1, 2, 0), (0, 1, 1), (2, 0, 1), (1, 1, 1), (3, 1, 2)], float)
Q = np.array([(0, 0, 1), (1, 3, 0), (2, 2, 2), (1, 0, 1)], float)


def cloud(n: int, d: int, seed: int, shift: float = 0.0) -> Real:
    return np.random.default_rng(seed).normal(size=(n, d)) + shift


@pytest.mark.parametrize(
    ("x", "y", "unbiased", "biased"),
    [
        (A, B, 37 / 36, 617 / 72),
        (A, A, -14 / 9, 0),
        (SQUARE, SQUARE + 1, 121 / 3, 103),
        (P, Q, -4091 / 405, 73541 / 10800),
    ],
    ids=["K1", "K1s", "K2", "K3"],
)
def test_point_sets_have_the_reference_value(
    x: Real, y: Real, unbiased: float, biased: float
) -> None:
    assert kid(x, y) == pytest.approx(unbiased, rel=1e-13)
    assert kid(y, x) == pytest.approx(unbiased, rel=1e-13)
    assert kid_biased(x, y) == pytest.approx(biased, rel=1e-12, abs=1e-12)


def test_value_does_not_depend_on_how_rows_are_blocked(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = cloud(23, 4, 0), cloud(17, 4, 1)
    whole = kid(x, y)
    monkeypatch.setattr(kernels, "_ROWS", 5)
    assert kid(x, y) == pytest.approx(whole, rel=1e-12)
    assert kid(x[::-1], y) == pytest.approx(whole, rel=1e-12)


def test_blocks_of_the_whole_set_equal_the_full_estimate() -> None:
    x, y = cloud(12, 3, 2), cloud(12, 3, 3, shift=0.5)
    mean, deviation = kid_blocks(x, y, blocks=5, size=12)
    assert mean == pytest.approx(kid(x, y), rel=1e-12)
    assert deviation == pytest.approx(0, abs=1e-12)


def test_a_block_is_the_estimate_over_its_rows() -> None:
    x, y = cloud(9, 3, 4), cloud(8, 3, 5)
    mean, deviation = kid_blocks(x, y, blocks=400, size=4, seed=1)
    assert deviation > 0
    assert mean == pytest.approx(kid(x, y), abs=4 * deviation / 20)
    assert kid_blocks(x, y, blocks=400, size=4, seed=1) == (mean, deviation)
    assert kid_blocks(x, y, blocks=400, size=4, seed=2)[0] != mean


def test_random_splits_of_one_set_average_to_zero() -> None:
    x = cloud(40, 4, 6)
    rng = np.random.default_rng(7)
    values = []
    for _ in range(300):
        order = rng.permutation(40)
        values.append(kid(x[order[:20]], x[order[20:]]))
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(300)


def test_torchmetrics_agrees_on_its_polynomial_discrepancy() -> None:
    functions = pytest.importorskip("torchmetrics.image.kid")
    x, y = cloud(30, 6, 8), cloud(30, 6, 9, shift=0.3)
    expected = functions.poly_mmd(torch.from_numpy(x), torch.from_numpy(y))
    assert kid(x, y) == pytest.approx(float(expected), rel=1e-12)


def test_torchmetrics_agrees_with_an_identity_as_extractor() -> None:
    functions = pytest.importorskip("torchmetrics.image.kid")

    class Flat(torch.nn.Module):
        num_features = 12

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1).double() / 255

    rng = np.random.default_rng(0)
    x, y = (rng.integers(low, 256, (25, 3, 2, 2)).astype(np.uint8) for low in (0, 40))
    metric = functions.KernelInceptionDistance(feature=Flat(), subsets=3, subset_size=25)
    metric.set_dtype(torch.float64)
    metric.update(torch.from_numpy(x), real=True)
    metric.update(torch.from_numpy(y), real=False)
    mean, deviation = metric.compute()
    assert float(deviation) == pytest.approx(0, abs=1e-9)
    found = kid(x.reshape(25, -1) / 255, y.reshape(25, -1) / 255)
    assert found == pytest.approx(float(mean), rel=1e-5)  # the mean is kept in float32 there


def test_bootstrap_leaves_out_pairs_of_an_image_with_itself() -> None:
    # An image drawn twice is not a neighbour of itself, so the draws are centred on the value.
    x, y = cloud(40, 5, 10), cloud(30, 5, 11, shift=0.2)
    (found,) = Kid().measure(compare(x, y, ScoreSettings(bootstrap=400)), intervals=True)
    assert found.interval is not None
    assert found.interval[0] < found.value < found.interval[1]
    assert found.details["block_size"] == 30
    assert found.details["blocks"] == 100


def test_kernel_is_cubic_with_the_width_as_scale() -> None:
    found = cubic_kernel(np.array([[1.0, 2.0]]), np.array([[3.0, 4.0]]))
    assert float(found[0, 0]) == (11 / 2 + 1) ** 3


def test_sets_that_cannot_be_compared_are_refused_with_their_sizes() -> None:
    with pytest.raises(ValueError, match=r"2 rows in each set, got 3 and 1"):
        kid(A, B[:1])
    with pytest.raises(ValueError, match=r"features are 2 and 3 wide"):
        kid(A, P)
    with pytest.raises(ValueError, match=r"blocks of 4 need as many rows, got 3 and 3"):
        kid_blocks(A, B, size=4)
