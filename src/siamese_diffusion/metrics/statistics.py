"""Mean and covariance of a stream of feature blocks, in float64; memory does not grow with n."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Features = npt.NDArray[np.float32] | npt.NDArray[np.float64]
Real = npt.NDArray[np.float64]

BLOCK = 4096  # rows at a time


@dataclass(frozen=True)
class Statistics:
    """Of `n` rows: column means (d,) and covariance (d, d) with divisor n - 1."""

    n: int
    mean: Real
    covariance: Real


class RunningStatistics:
    """Add blocks (rows, d) in any number and order; `result` may be asked at any time.

    Deviations are summed about the mean of each block and merged (Chan et al. 1979), so that
    features far from zero lose no digits.
    """

    def __init__(self) -> None:
        self._n = 0
        self._mean: Real | None = None
        self._scatter: Real | None = None

    def add(self, block: Features) -> None:
        """Take one block into account; blocks without rows are ignored."""
        rows = np.asarray(block, dtype=np.float64)
        if not len(rows):
            return
        mean = rows.mean(0)
        centred = rows - mean
        scatter = centred.T @ centred
        if self._mean is None or self._scatter is None:
            self._n, self._mean, self._scatter = len(rows), mean, scatter
            return
        total = self._n + len(rows)
        shift = mean - self._mean
        self._scatter += scatter
        self._scatter += np.outer(shift, shift) * (self._n * len(rows) / total)
        self._mean = self._mean + shift * (len(rows) / total)
        self._n = total

    def result(self) -> Statistics:
        """The statistics so far.

        Raises:
            ValueError: If fewer than two rows were added.
        """
        if self._mean is None or self._scatter is None or self._n < 2:
            raise ValueError(f"a covariance needs 2 rows, got {self._n}")
        return Statistics(self._n, self._mean, self._scatter / (self._n - 1))


def blocks(features: Features, rows: int = BLOCK) -> Iterator[Real]:
    """Parts of a matrix as float64; a memory-mapped matrix is read part by part."""
    for start in range(0, len(features), rows):
        yield np.asarray(features[start : start + rows], dtype=np.float64)


def statistics(features: Features) -> Statistics:
    """Mean and covariance of a matrix (n, d), read block by block."""
    running = RunningStatistics()
    for block in blocks(features):
        running.add(block)
    return running.result()
