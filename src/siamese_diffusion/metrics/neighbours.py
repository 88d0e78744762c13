"""Exact nearest neighbours of feature rows, block by block."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from siamese_diffusion.metrics.statistics import Features, Real, blocks

_ROWS: Final = 1024
Indices = npt.NDArray[np.intp]


def squared_distances(x: Real, y: Real) -> Real:
    """|x_i - y_j|^2 of rows (a, d) and (b, d), (a, b), never negative."""
    squares = np.square(x).sum(1)[:, None] + np.square(y).sum(1)[None] - 2 * (x @ y.T)
    return np.asarray(np.clip(squares, 0, None), dtype=np.float64)


def nearest(
    queries: Features, among: Features, k: int = 1, *, exclude_self: bool = False
) -> tuple[Indices, Real]:
    """The k closest rows of `among` for every query, closest first.

    Args:
        queries: (n, d).
        among: (m, d).
        k: How many.
        exclude_self: Query i may not find row i; for a set among itself.

    Returns:
        Indices (n, k) and Euclidean distances (n, k). Distances are taken again from the
        differences, so that equal rows are at exactly 0. Among equal distances the lower index
        comes first.

    Raises:
        ValueError: If there are fewer than k rows to find.
    """
    there = len(among) - int(exclude_self)
    if not 1 <= k <= there:
        raise ValueError(f"{k} neighbours asked for, but there are {there} to find")
    rows: Real = np.asarray(among, dtype=np.float64)
    centre = rows.mean(0)
    rows = rows - centre  # near zero the expanded square loses no digits
    indices = np.empty((len(queries), k), dtype=np.intp)
    distances = np.empty((len(queries), k))
    spare = min(there, k + 4)  # rounding may swap near ties; the exact distances decide
    for number, block in enumerate(blocks(queries, _ROWS)):
        start = number * _ROWS
        block = block - centre
        squares = squared_distances(block, rows)
        if exclude_self:
            own = np.arange(len(block))
            squares[own, own + start] = np.inf
        if spare < squares.shape[1]:
            near = np.sort(np.argpartition(squares, spare - 1, axis=1)[:, :spare], axis=1)
        else:
            near = np.tile(np.arange(squares.shape[1]), (len(block), 1))
        exact = np.linalg.norm(block[:, None] - rows[near], axis=2)
        if exclude_self:
            exact[near == (np.arange(len(block)) + start)[:, None]] = np.inf
        order = np.argsort(exact, axis=1, kind="stable")[:, :k]
        end = start + len(block)
        indices[start:end] = np.take_along_axis(near, order, 1)
        distances[start:end] = np.take_along_axis(exact, order, 1)
    return indices, distances
