"""CMMD: reference vectors, cancellation, names."""

from __future__ import annotations

import math

import numpy as np
import pytest

from metrics.bench import compare
from siamese_diffusion.metrics.clip_i import unit_rows
from siamese_diffusion.metrics.cmmd import Cmmd, cmmd, cmmd_unbiased
from siamese_diffusion.metrics.statistics import Real

E1 = np.array([[1.0, 0.0]])
E2 = np.array([[0.0, 1.0]])
C3 = (np.array([(1.0, 0), (0, 1)]), np.array([(1.0, 0), (-1, 0)]))
C4 = (
    np.array([(1, 0, 0), (0.6, 0.8, 0), (0, 1, 0)]),
    np.array([(0, 0, 1), (0.8, 0, 0.6)]),
)


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        (E1, E2, 2000 * (1 - math.exp(-0.01))),
        (E1, -E1, 39.60265338648949),
        (*C3, 4.975083125416),
        (*C4, 10.123456087737),
    ],
    ids=["C1", "C2", "C3", "C4"],
)
def test_embeddings_have_the_reference_value(x: Real, y: Real, expected: float) -> None:
    assert cmmd(x, y) == pytest.approx(expected, rel=1e-12)
    assert cmmd(y, x) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("pair", "expected"), [(C3, -9.900663346623), (C4, 6.356319844232)], ids=["C3", "C4"]
)
def test_unbiased_form_has_the_reference_value(pair: tuple[Real, Real], expected: float) -> None:
    assert cmmd_unbiased(*pair) == pytest.approx(expected, rel=1e-12)


def test_unbiased_form_needs_two_embeddings() -> None:
    with pytest.raises(ValueError, match=r"2 rows in each set, got 1 and 2"):
        cmmd_unbiased(E1, C3[0])


def test_a_set_is_at_zero_from_itself_and_nothing_is_negative() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(50, 16)) + 4, rng.normal(size=(40, 16)) + 4
    assert cmmd(x, x) == pytest.approx(0, abs=1e-10)
    assert cmmd(x, y) > 0
    assert cmmd(x[::-1], y) == pytest.approx(cmmd(x, y), rel=1e-10)


def test_small_values_do_not_cancel() -> None:
    # First order: 10 |mean x - mean y|^2, here of embeddings that hardly differ.
    rng = np.random.default_rng(1)
    x = unit_rows(np.ones((400, 8)) + 1e-3 * rng.normal(size=(400, 8)))
    y = unit_rows(np.ones((400, 8)) + 1e-3 * rng.normal(size=(400, 8)))
    expected = 10 * np.square(x.mean(0) - y.mean(0)).sum()
    assert cmmd(x, y) == pytest.approx(expected, rel=1e-5)


def test_length_of_embeddings_does_not_matter() -> None:
    x, y = C4
    assert cmmd(20 * x, 13 * y) == pytest.approx(10.123456087737, rel=1e-12)


def test_other_encoders_are_in_the_name_and_few_images_are_warned_of() -> None:
    (found,) = Cmmd().measure(compare(*C4), intervals=True)
    assert found.name == "cmmd"
    assert found.notes[0].startswith("with 2 images the upward bias")
    assert found.details["unbiased"] == pytest.approx(6.356319844232)
    (other,) = Cmmd().measure(compare(*C4, reference=False), intervals=False)
    assert other.name == "cmmd_given"


def test_interval_holds_the_value() -> None:
    rng = np.random.default_rng(2)
    (found,) = Cmmd().measure(
        compare(rng.random((40, 4)), rng.random((30, 4)) ** 3), intervals=True
    )
    assert found.interval is not None
    assert found.interval[0] < found.value < found.interval[1]
