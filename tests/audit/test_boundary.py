"""Distances between outlines, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from siamese_diffusion.audit.boundary import boundary_distance, outline

DIAGONAL = float(np.hypot(20, 20))


def square(top: int, left: int, side: int) -> np.ndarray:
    mask = np.zeros((20, 20), bool)
    mask[top : top + side, left : left + side] = True
    return mask


def test_outline_is_the_rim_inside_and_not_the_picture_edge() -> None:
    assert int(outline(square(5, 5, 4)).sum()) == 12
    half = np.zeros((20, 20), bool)
    half[:, :8] = True
    assert int(outline(half).sum()) == 20
    assert bool(outline(half)[:, 7].all())


def test_equal_maps_are_at_zero() -> None:
    assert boundary_distance(square(3, 3, 9), square(3, 3, 9)) == 0.0
    empty = np.zeros((20, 20), bool)
    assert boundary_distance(empty, empty) == 0.0
    assert boundary_distance(~empty, ~empty) == 0.0


def test_a_line_shifted_by_three_pixels_is_at_three() -> None:
    first, second = np.zeros((20, 20), bool), np.zeros((20, 20), bool)
    first[:, :8] = True
    second[:, :11] = True
    assert boundary_distance(first, second) == pytest.approx(3 / DIAGONAL)
    assert boundary_distance(second, first) == pytest.approx(3 / DIAGONAL)


def test_nothing_found_is_as_far_as_can_be() -> None:
    empty = np.zeros((20, 20), bool)
    assert boundary_distance(empty, square(3, 3, 5)) == 1.0
    assert boundary_distance(square(3, 3, 5), ~empty) == 1.0
    assert boundary_distance(empty, ~empty) == 1.0
