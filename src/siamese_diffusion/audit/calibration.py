"""When is an image too close to the training set? Answered by images that cannot be copies.

Hold-out images are as close to the training set as honest images are. Flagging what is closer than
the k-th closest of h hold-out images flags an honest image with a chance of at most k / (h + 1),
whatever the distribution: only that honest and hold-out images are exchangeable is assumed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import stats

from siamese_diffusion.core.errors import DataError
from siamese_diffusion.core.seeding import derive_seed
from siamese_diffusion.metrics.statistics import Real

VERDICT_RATE: Final = 0.05
"""Chance that an honest set is said to hold copies."""
_DRAWS: Final = 200


@dataclass(frozen=True)
class Threshold:
    """Images closer than `distance` are flagged, honest ones with a chance of at most `rate`."""

    distance: float
    rate: float
    rank: int
    n: int


def require_rank(rate: float, n: int, *, images: str, lower: str = "a rate of at least ") -> int:
    """How many of `n` known images may lie beyond a limit so that an honest one does at `rate`.

    Args:
        rate: Chance of an honest image.
        n: Number of images that the limit is taken from.
        images: What these are, for the error.
        lower: How to ask for another rate, for the error.

    Raises:
        DataError: If there are too few images for so small a rate.
    """
    rank = _rank(rate, n)
    if rank < 1:
        raise DataError(
            f"a rate of {rate:g} needs {math.ceil(1 / rate) - 1} {images}, got {n}",
            hint=f"give more, or {lower}{1 / (n + 1):.3g}",
        )
    return rank


def calibrate(holdout: Real, rate: float) -> Threshold:
    """The threshold from distances of hold-out images to the training set.

    Raises:
        DataError: If there are too few hold-out images for so small a rate.
    """
    rank = require_rank(rate, len(holdout), images="hold-out images")
    distance = float(np.sort(holdout)[rank - 1])
    return Threshold(distance, rank / (len(holdout) + 1), rank, len(holdout))


def flags(distances: Real, threshold: Threshold) -> np.ndarray:
    """Which images are closer than the threshold, (m,) bool."""
    return np.asarray(distances < threshold.distance)


def chance_of(flagged: int, m: int, threshold: Threshold) -> float:
    """Chance that `flagged` or more of `m` honest images are flagged.

    The share of honest images below the k-th of h order statistics has the law Beta(k, h + 1 - k),
    so that the count is beta-binomial; no estimate enters.
    """
    if flagged == 0:
        return 1.0
    law = stats.betabinom(m, threshold.rank, threshold.n + 1 - threshold.rank)
    return float(law.sf(flagged - 1))


def false_alarms(holdout: Real, rate: float, seed: int) -> float | None:
    """How often a random half of the hold-out set is said to hold copies, judged by the other half.

    None if a half is too few for the rate.
    """
    half = len(holdout) // 2
    if _rank(rate, half) < 1:
        return None
    rng = np.random.default_rng(derive_seed(seed, "false alarms"))
    alarms = 0
    for _ in range(_DRAWS):
        order = rng.permutation(len(holdout))
        threshold = calibrate(holdout[order[:half]], rate)
        judged = holdout[order[half : 2 * half]]
        found = int(flags(judged, threshold).sum())
        alarms += chance_of(found, len(judged), threshold) < VERDICT_RATE
    return alarms / _DRAWS


def _rank(rate: float, n: int) -> int:
    return math.floor(rate * (n + 1) + 1e-9)  # 0.29 * 100 is a little less than 29
