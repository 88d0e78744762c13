"""Nearest neighbours against brute force."""

from __future__ import annotations

import numpy as np
import pytest

from siamese_diffusion.metrics import neighbours as module
from siamese_diffusion.metrics.neighbours import nearest


def test_neighbours_equal_brute_force(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ROWS", 7)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(31, 6)), rng.normal(size=(20, 6)).astype(np.float32)
    full = np.linalg.norm(x[:, None] - y[None].astype(float), axis=2)
    indices, distances = nearest(x, y, 3)
    np.testing.assert_array_equal(indices, np.argsort(full, axis=1)[:, :3])
    np.testing.assert_allclose(distances, np.sort(full, axis=1)[:, :3], rtol=1e-12)


def test_a_set_among_itself_does_not_find_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ROWS", 4)
    x = np.random.default_rng(1).normal(size=(15, 3))
    full = np.linalg.norm(x[:, None] - x[None], axis=2)
    np.fill_diagonal(full, np.inf)
    indices, distances = nearest(x, x, 14, exclude_self=True)
    np.testing.assert_array_equal(indices, np.argsort(full, axis=1)[:, :14])
    assert np.isfinite(distances).all()


def test_equal_rows_are_at_exactly_zero_far_from_the_origin() -> None:
    x = np.random.default_rng(2).normal(size=(10, 4)) + 1e6
    indices, distances = nearest(x, x)
    assert (distances == 0).all()
    np.testing.assert_array_equal(indices[:, 0], np.arange(10))


def test_lower_index_comes_first_among_equals() -> None:
    y = np.array([[1.0], [1.0], [1.0], [5.0]])
    np.testing.assert_array_equal(nearest(np.zeros((1, 1)), y, 3)[0], [[0, 1, 2]])


def test_more_neighbours_than_rows_are_refused() -> None:
    x = np.zeros((3, 2))
    with pytest.raises(ValueError, match=r"3 neighbours asked for, but there are 2"):
        nearest(x, x, 3, exclude_self=True)
