"""Right and wrong pixels of each image, counted once as integers; every score is made from them.

Two things are counted: the hard decision (tp, fp, fn, tn) and, for scores over all thresholds, how
often each grey level of the stored map occurs inside and outside the true foreground. Free of
torch; knows no network, no file and no averaging rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

LEVELS = 256  # grey levels of a stored map, and thresholds of the sweep

Bools = npt.NDArray[np.bool_]
Grey = npt.NDArray[np.uint8]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Counts:
    """Counts of N images.

    Attributes:
        tp, fp, fn, tn: Pixels by decision and truth, (N,) int64.
        inside: Pixels of the true foreground by normalised grey level of the map, (N, 256) int64.
        outside: The same of the true background.
        constant: Whether the stored map had one grey level only, so could not be normalised, (N,).
    """

    tp: Integers
    fp: Integers
    fn: Integers
    tn: Integers
    inside: Integers
    outside: Integers
    constant: Bools

    def __len__(self) -> int:
        return len(self.tp)

    @property
    def empty(self) -> Bools:
        """Images without any true foreground, (N,)."""
        none: Bools = self.tp + self.fn == 0
        return none


def count_image(grey: Grey, decision: Bools, truth: Bools) -> Counts:
    """Counts of one image, N = 1.

    The map is min-max normalised over the image first, as the polyp toolbox does: level v becomes
    floor(255 (v - min) / (max - min)), in integers and on the histogram, so no pixel is touched
    twice. A constant map is left as it is.

    Args:
        grey: Stored probability map, (H, W) uint8.
        decision: Predicted foreground, (H, W).
        truth: True foreground, (H, W).

    Raises:
        ValueError: If the shapes differ.

    Source: evaluation protocol of PraNet (MATLAB), in integers.
    """
    if not grey.shape == decision.shape == truth.shape:
        raise ValueError(
            f"map {grey.shape}, decision {decision.shape} and truth {truth.shape} differ in shape"
        )
    by_level = np.bincount(
        grey.ravel().astype(np.int64) + LEVELS * truth.ravel(), minlength=2 * LEVELS
    ).reshape(2, LEVELS)
    by_decision = np.bincount(decision.ravel().astype(np.int64) + 2 * truth.ravel(), minlength=4)
    tn, fp, fn, tp = (int(value) for value in by_decision)
    present = np.flatnonzero(by_level.sum(0))
    low, high = int(present[0]), int(present[-1])
    outside, inside = by_level
    if high > low:
        new = (LEVELS - 1) * (np.arange(low, high + 1) - low) // (high - low)
        outside, inside = (_moved(part[low : high + 1], new) for part in by_level)
    return Counts(
        tp=np.array([tp], np.int64),
        fp=np.array([fp], np.int64),
        fn=np.array([fn], np.int64),
        tn=np.array([tn], np.int64),
        inside=inside[None],
        outside=outside[None],
        constant=np.array([high == low]),
    )


def stack_counts(parts: Sequence[Counts]) -> Counts:
    """Counts of several images, or sets, as one set in the given order.

    Raises:
        ValueError: If there is nothing to stack.
    """
    if not parts:
        raise ValueError("there are no counts to stack")
    return Counts(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Counts)))


def threshold_counts(counts: Counts) -> tuple[Integers, Integers, Integers]:
    """True positives, false positives and false negatives at the 256 thresholds, (N, 256) each.

    Threshold j takes every pixel of normalised level j or more, so j = 0 takes the whole image.
    """
    tp = np.cumsum(counts.inside[:, ::-1], axis=1)[:, ::-1]
    fp = np.cumsum(counts.outside[:, ::-1], axis=1)[:, ::-1]
    return tp, fp, tp[:, :1] - tp


def _moved(histogram: Integers, new: Integers) -> Integers:
    moved = np.zeros(LEVELS, np.int64)
    np.add.at(moved, new, histogram)
    return moved
