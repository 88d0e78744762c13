"""Weighted sums over all pairs of a kernel, block by block: what KID and CMMD are made of."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from siamese_diffusion.metrics.statistics import Features, Real, blocks

Kernel = Callable[[Real, Real], Real]
"""Rows (a, d) and (b, d) to the kernel of each pair, (a, b)."""

_ROWS = 2048  # a block of kernel values is at most 32 MiB


def pair_sums(kernel: Kernel, x: Features, y: Features, w_x: Real, w_y: Real) -> Real:
    """Sum over all i, j of w_x[b, i] k(x_i, y_j) w_y[b, j] for every row b of the weights.

    Args:
        kernel: See `Kernel`.
        x: (n, d).
        y: (m, d).
        w_x: (B, n), such as ones, or how often each image was drawn.
        w_y: (B, m).

    Returns:
        (B,), float64. Memory does not grow with n m.
    """
    total = np.zeros(len(w_x))
    for i, rows in enumerate(blocks(x, _ROWS)):
        left = w_x[:, i * _ROWS : i * _ROWS + len(rows)]
        for j, columns in enumerate(blocks(y, _ROWS)):
            right = w_y[:, j * _ROWS : j * _ROWS + len(columns)]
            total += ((left @ kernel(rows, columns)) * right).sum(1)
    return total


def diagonal_sums(kernel_of_equal: Callable[[Real], Real], x: Features, w_x: Real) -> Real:
    """Sum over i of w_x[b, i]^2 k(x_i, x_i), (B,).

    Args:
        kernel_of_equal: Rows (a, d) to the kernel of each with itself, (a,).
        x: (n, d).
        w_x: (B, n).
    """
    total = np.zeros(len(w_x))
    for i, rows in enumerate(blocks(x, _ROWS)):
        total += np.square(w_x[:, i * _ROWS : i * _ROWS + len(rows)]) @ kernel_of_equal(rows)
    return total
