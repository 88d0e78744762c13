"""Statistics of yes/no votes: pure functions on tables of votes, no file, no names of sources.

A table of votes is float64 (items, raters) with 1 for "real", 0 for "synthetic" and NaN where a
rater has not rated. Bootstrap and permutation draws come from the generator that is handed in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations
from typing import Final

import numpy as np
import numpy.typing as npt

Table = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

Z_95: Final = 1.959964  # two-sided 95 percent point of the normal distribution
EXACT_LIMIT: Final = 20_000  # at most this many splits are enumerated instead of drawn
_BLOCK: Final = 2_000  # draws held in memory together
_TIE: Final = 1e-12  # rounding of equal differences


@dataclass(frozen=True)
class Interval:
    """Lower and upper end of a 95 percent interval."""

    low: float
    high: float


@dataclass(frozen=True)
class Permutation:
    """A two-sided permutation test: its p value and how many splits it looked at."""

    p: float
    splits: int
    exact: bool


def share(votes: Table) -> float | None:
    """Mean over all votes that are there; the MOS if 1 means "real". None without votes."""
    n = int(np.isfinite(votes).sum())
    return float(np.nansum(votes) / n) if n else None


def wilson(yes: int, n: int, z: float = Z_95) -> Interval:
    """Wilson score interval of a proportion.

    Args:
        yes: Votes counted, 0 to n.
        n: All votes, at least 1.
        z: Normal quantile of the wanted coverage.

    Raises:
        ValueError: If there are no votes, or more counted than given.

    Source: Wilson (1927), Journal of the American Statistical Association 22.
    """
    if n < 1 or not 0 <= yes <= n:
        raise ValueError(f"{yes} of {n} votes is no proportion; n >= 1 and 0 <= yes <= n")
    p = yes / n
    spread = 1 + z * z / n
    centre = (p + z * z / (2 * n)) / spread
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / spread
    return Interval(max(0.0, centre - half), min(1.0, centre + half))


def fleiss_kappa(counts: Counts) -> float | None:
    """Agreement of several raters beyond chance.

    Args:
        counts: Votes per item and class, (items, classes); every item has the same number of
            raters, at least two.

    Returns:
        1 for full agreement, 0 for chance; None if every vote is for one class, where agreement
        by chance is already full and kappa is 0/0.

    Raises:
        ValueError: If there is no item, or the number of raters differs or is below two.

    Source: Fleiss (1971), Psychological Bulletin 76.
    """
    if counts.ndim != 2 or not len(counts):
        raise ValueError(f"counts of shape {counts.shape}; expected (items, classes), items >= 1")
    raters = counts.sum(axis=1)
    r = int(raters[0])
    if r < 2 or (raters != r).any():
        raise ValueError(f"items have {sorted(set(raters.tolist()))} raters; one number >= 2")
    observed = float(((counts**2).sum(axis=1) - r).mean() / (r * (r - 1)))
    by_chance = float(((counts.sum(axis=0) / counts.sum()) ** 2).sum())
    # All votes in one class give exactly 1: the share is a ratio of equal integers.
    return None if by_chance == 1.0 else (observed - by_chance) / (1 - by_chance)


def class_counts(votes: Table) -> tuple[Counts, int]:
    """Votes (real, synthetic) of the items that every rater rated, and how many items are left out.

    Fleiss' kappa knows no missing votes.
    """
    complete = votes[np.isfinite(votes).all(axis=1)]
    real = complete.sum(axis=1).astype(np.int64)
    return np.stack([real, votes.shape[1] - real], axis=1), len(votes) - len(complete)


def weighted_share(votes: Table, weights: Table) -> float | None:
    """Mean of votes weighted by confidence; None if every weight is zero."""
    there = np.isfinite(votes) & np.isfinite(weights)
    total = float(weights[there].sum())
    return float((votes[there] * weights[there]).sum() / total) if total > 0 else None


def bootstrap(
    values: Table, rng: np.random.Generator, *, resamples: int, raters_too: bool = False
) -> Interval | None:
    """Percentile interval of the mean; an image is drawn together with all its raters.

    Args:
        values: Table (items, raters) of votes or confidences, NaN where missing.
        rng: Source of the draws.
        resamples: Number of draws.
        raters_too: Draw raters as well, independently of the images: what another panel might
            say. With three raters this is coarse, and honest about it.

    Returns:
        95 percent interval; None with fewer than two images, which cannot show how images differ.
    """
    if np.isfinite(values).any(axis=1).sum() < 2:
        return None
    means = _resampled_means(values, rng, resamples, raters_too)
    return _percentiles(means)


def bootstrap_difference(
    first: Table, second: Table, rng: np.random.Generator, *, resamples: int
) -> Interval | None:
    """Percentile interval of `paired_difference`, images of both sources drawn anew.

    None if a source has fewer than two images with votes.
    """
    if min(np.isfinite(votes).any(axis=1).sum() for votes in (first, second)) < 2:
        return None
    draws = []
    for size in _blocks(resamples):
        left = _per_rater(_weights(len(first), size, rng), first)
        right = _per_rater(_weights(len(second), size, rng), second)
        draws.append(_mean_over_raters(left - right))
    return _percentiles(np.concatenate(draws))


def paired_difference(first: Table, second: Table) -> float | None:
    """Mean over raters of (share of the first source - share of the second, by the same rater).

    Raters without a vote for one of the sources are left out; None if nobody is left.
    """
    if not len(first) or not len(second):
        return None
    gaps = _per_rater(np.ones((1, len(first))), first) - _per_rater(
        np.ones((1, len(second))), second
    )
    value = _mean_over_raters(gaps)[0]
    return float(value) if np.isfinite(value) else None


def permutation_test(
    first: Table, second: Table, rng: np.random.Generator, *, resamples: int
) -> Permutation | None:
    """Two-sided test of `paired_difference` over images.

    If the sources are alike, an image could as well have come from the other one: images change
    sides with all their votes, so pairing by rater and dependence within an image are kept. All
    splits are enumerated up to `EXACT_LIMIT`; beyond that `resamples` are drawn and the observed
    one counts among them, so p is never 0.

    Returns:
        None if the difference is not defined.
    """
    observed = paired_difference(first, second)
    if observed is None:
        return None
    pooled = np.concatenate([first, second])
    n, k = len(pooled), len(first)
    exact = math.comb(n, k) <= EXACT_LIMIT
    if exact:
        chosen = np.array(list(combinations(range(n), k)))
        members = np.zeros((len(chosen), n))
        np.put_along_axis(members, chosen, 1.0, axis=1)
        extreme = _extreme(pooled, members, observed)
        return Permutation(extreme / len(chosen), len(chosen), exact)
    extreme = 0
    for size in _blocks(resamples):
        ranks = rng.random((size, n)).argsort(axis=1)
        extreme += _extreme(pooled, (ranks < k).astype(np.float64), observed)
    return Permutation((extreme + 1) / (resamples + 1), resamples, exact)


def holm(p_values: list[float]) -> list[float]:
    """P values adjusted for the number of comparisons, in the given order.

    Source: Holm (1979), Scandinavian Journal of Statistics 6.
    """
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def _blocks(total: int) -> list[int]:
    return [min(_BLOCK, total - start) for start in range(0, total, _BLOCK)]


def _weights(n: int, size: int, rng: np.random.Generator) -> Table:
    """How often each of n things is drawn in each of `size` resamples, (size, n)."""
    return rng.multinomial(n, np.full(n, 1 / n), size=size).astype(np.float64)


def _resampled_means(
    values: Table, rng: np.random.Generator, resamples: int, raters_too: bool
) -> Table:
    items, raters = values.shape
    there = np.isfinite(values).astype(np.float64)
    filled = np.nan_to_num(values)
    means = []
    for size in _blocks(resamples):
        of_items = _weights(items, size, rng)
        of_raters = _weights(raters, size, rng) if raters_too else np.ones((size, raters))
        sums = ((of_items @ filled) * of_raters).sum(axis=1)
        counts = ((of_items @ there) * of_raters).sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            means.append(sums / counts)
    return np.concatenate(means)


def _per_rater(weights: Table, votes: Table) -> Table:
    """Weighted share of each rater, (draws, raters); NaN where a rater has no vote."""
    sums = weights @ np.nan_to_num(votes)
    counts = weights @ np.isfinite(votes).astype(np.float64)
    shares: Table = np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)
    return shares


def _mean_over_raters(gaps: Table) -> Table:
    there = np.isfinite(gaps)
    counts = there.sum(axis=1)
    sums = np.where(there, gaps, 0.0).sum(axis=1)
    means: Table = np.divide(sums, counts, out=np.full(len(gaps), np.nan), where=counts > 0)
    return means


def _extreme(pooled: Table, members: Table, observed: float) -> int:
    gaps = _per_rater(members, pooled) - _per_rater(1 - members, pooled)
    return int((np.abs(_mean_over_raters(gaps)) >= abs(observed) - _TIE).sum())


def _percentiles(draws: Table) -> Interval | None:
    draws = draws[np.isfinite(draws)]
    if not len(draws):
        return None
    low, high = np.percentile(draws, [2.5, 97.5])
    return Interval(float(low), float(high))
