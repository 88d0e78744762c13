"""Statistics of votes against published and hand-computed values."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from siamese_diffusion.mos import statistics
from siamese_diffusion.mos.statistics import Interval

NAN = float("nan")


def votes(*rows: tuple[float, ...]) -> np.ndarray:
    return np.array(rows, dtype=np.float64)


def split(counts: list[int], raters: int) -> np.ndarray:
    """Table with this many "real" votes per item."""
    return np.array([[float(r < count) for r in range(raters)] for count in counts])


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_mos_of_88_of_150_votes_is_the_value_of_table_1() -> None:
    table = np.zeros(150)
    table[:88] = 1
    assert statistics.share(table.reshape(50, 3)) == pytest.approx(0.5866666667)
    assert round(35 / 150, 3) == 0.233 and round(73 / 150, 3) == 0.487


def test_share_ignores_missing_votes_and_is_none_without_any() -> None:
    assert statistics.share(votes((1, NAN), (0, 1))) == pytest.approx(2 / 3)
    assert statistics.share(votes((NAN, NAN))) is None


def test_wilson_interval_of_88_of_150() -> None:
    interval = statistics.wilson(88, 150)
    assert (round(interval.low, 4), round(interval.high, 4)) == (0.5067, 0.6623)


def test_wilson_interval_of_none_and_all_stays_in_range() -> None:
    # No success of ten: the upper end is z^2 / (n + z^2).
    z2 = statistics.Z_95**2
    none = statistics.wilson(0, 10)
    assert none.low == 0.0
    assert none.high == pytest.approx(z2 / (10 + z2))
    assert statistics.wilson(10, 10).high == pytest.approx(1.0)


@pytest.mark.parametrize(("yes", "n"), [(0, 0), (3, 2), (-1, 4)])
def test_wilson_refuses_what_is_no_proportion(yes: int, n: int) -> None:
    with pytest.raises(ValueError, match=f"{yes} of {n} votes"):
        statistics.wilson(yes, n)


def test_kappa_of_the_published_worked_example() -> None:
    # Fourteen raters, ten items, five classes: the example of the article "Fleiss' kappa" in
    # Wikipedia, which gives mean agreement 0.378, agreement by chance 0.213 and kappa 0.210.
    counts = np.array(
        [
            [0, 0, 0, 0, 14],
            [0, 2, 6, 4, 2],
            [0, 0, 3, 5, 6],
            [0, 3, 9, 2, 0],
            [2, 2, 8, 1, 1],
            [7, 7, 0, 0, 0],
            [3, 2, 6, 3, 0],
            [2, 5, 3, 2, 2],
            [6, 5, 2, 1, 0],
            [0, 2, 2, 3, 7],
        ]
    )
    kappa = statistics.fleiss_kappa(counts)
    assert kappa is not None and round(kappa, 3) == 0.210


@pytest.mark.parametrize(
    ("real", "expected"), [([3, 3, 0, 0], 1.0), ([2, 1, 2, 1], -1 / 3), ([3, 2, 1, 0], 1 / 3)]
)
def test_kappa_of_three_raters(real: list[int], expected: float) -> None:
    counts, left_out = statistics.class_counts(split(real, 3))
    assert left_out == 0
    assert statistics.fleiss_kappa(counts) == pytest.approx(expected)


def test_kappa_of_votes_for_one_class_only_is_undefined() -> None:
    assert statistics.fleiss_kappa(np.array([[3, 0], [3, 0]])) is None


def test_kappa_refuses_unequal_and_single_raters() -> None:
    with pytest.raises(ValueError, match=r"items have \[2, 3\] raters"):
        statistics.fleiss_kappa(np.array([[2, 1], [2, 0]]))
    with pytest.raises(ValueError, match=r"items have \[1\] raters"):
        statistics.fleiss_kappa(np.array([[1, 0]]))


def test_items_that_not_everybody_rated_are_left_out_of_kappa_and_counted() -> None:
    counts, left_out = statistics.class_counts(votes((1, 1, 0), (1, NAN, 0), (0, 0, 0)))
    assert counts.tolist() == [[2, 1], [0, 3]]
    assert left_out == 1


def test_confidence_weighted_share() -> None:
    assert statistics.weighted_share(votes((1, 0, 1)), votes((10, 5, 5))) == pytest.approx(0.75)
    assert statistics.weighted_share(votes((1, 0)), votes((0, 0))) is None


def test_bootstrap_keeps_the_raters_of_an_image_together() -> None:
    # Both raters agree on every image: the mean of n images varies as sqrt(p (1 - p) / n), not as
    # if there were twice as many votes.
    table = np.repeat(split([1] * 50 + [0] * 50, 1), 2, axis=1)
    interval = statistics.bootstrap(table, rng(), resamples=4000)
    assert interval is not None
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * 0.05, abs=0.02)


def test_bootstrap_over_raters_shows_how_they_differ() -> None:
    table = np.repeat([[1.0, 0.0]], 40, axis=0)  # one always says real, the other never
    images_only = statistics.bootstrap(table, rng(), resamples=500)
    both = statistics.bootstrap(table, rng(), resamples=500, raters_too=True)
    assert images_only == Interval(0.5, 0.5)
    assert both == Interval(0.0, 1.0)


def test_bootstrap_is_a_function_of_its_generator_and_none_without_values() -> None:
    table = split([1, 2, 3, 0, 1], 3)
    first = statistics.bootstrap(table, rng(), resamples=300)
    assert first == statistics.bootstrap(table, rng(), resamples=300)
    assert statistics.bootstrap(np.empty((0, 3)), rng(), resamples=300) is None
    assert statistics.bootstrap(votes((NAN, NAN)), rng(), resamples=300) is None


def test_one_image_has_no_interval() -> None:
    one, many = votes((1, 0), (NAN, NAN)), votes((1, 0), (0, 1))
    assert statistics.bootstrap(one, rng(), resamples=300) is None
    assert statistics.bootstrap_difference(one, many, rng(), resamples=300) is None
    assert statistics.bootstrap_difference(many, one, rng(), resamples=300) is None
    assert statistics.bootstrap(many, rng(), resamples=300) is not None


def test_paired_difference_is_the_mean_of_the_raters_differences() -> None:
    first, second = votes((1, 1), (1, 0)), votes((0, 1), (0, NAN))
    # Rater 1: 1 - 0; rater 2: 0.5 - 1.
    assert statistics.paired_difference(first, second) == pytest.approx((1.0 - 0.5) / 2)
    assert statistics.paired_difference(first, votes((NAN, NAN))) is None


def brute_force_p(first: np.ndarray, second: np.ndarray) -> float:
    pooled = np.concatenate([first, second])
    observed = abs((first.mean(0) - second.mean(0)).mean())
    hits = total = 0
    for chosen in combinations(range(len(pooled)), len(first)):
        rest = [i for i in range(len(pooled)) if i not in chosen]
        gap = (pooled[list(chosen)].mean(0) - pooled[rest].mean(0)).mean()
        hits += abs(gap) >= observed - 1e-12
        total += 1
    return hits / total


def test_small_permutation_test_is_exact() -> None:
    first, second = split([3, 3, 2, 3], 3), split([0, 1, 0, 2], 3)
    test = statistics.permutation_test(first, second, rng(), resamples=10)
    assert test is not None
    assert (test.exact, test.splits) == (True, 70)
    assert test.p == pytest.approx(brute_force_p(first, second))


def test_full_separation_of_four_and_four_images_has_p_of_2_in_70() -> None:
    first, second = split([1] * 4, 1), split([0] * 4, 1)
    test = statistics.permutation_test(first, second, rng(), resamples=10)
    assert test is not None and test.p == pytest.approx(2 / 70)


def test_large_permutation_test_draws_and_is_never_zero() -> None:
    test = statistics.permutation_test(
        split([3] * 40, 3), split([0] * 40, 3), rng(), resamples=3000
    )
    assert test is not None
    assert not test.exact
    assert test.p == pytest.approx(1 / 3001)


def test_permutation_test_keeps_its_level_when_votes_within_an_image_agree() -> None:
    # Three raters who always agree are one vote: a test over votes would be fooled in far more
    # than 5 percent of the draws.
    draws = np.random.default_rng(1)
    hits = 0
    for _ in range(200):
        table = np.repeat(draws.integers(0, 2, (60, 1)).astype(float), 3, axis=1)
        test = statistics.permutation_test(table[:30], table[30:], draws, resamples=400)
        assert test is not None
        hits += test.p <= 0.05
    assert hits / 200 < 0.09


def test_interval_of_a_difference_covers_it() -> None:
    first, second = split([2] * 30, 3), split([1] * 30, 3)
    interval = statistics.bootstrap_difference(first, second, rng(), resamples=200)
    assert interval is not None
    assert (interval.low, interval.high) == pytest.approx((1 / 3, 1 / 3))
    assert statistics.bootstrap_difference(first, second[:0], rng(), resamples=200) is None


def test_holm_adjusts_in_the_given_order() -> None:
    # Sorted 0.01, 0.03, 0.04 times 3, 2, 1, never falling.
    assert statistics.holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert statistics.holm([0.6, 0.5]) == [1.0, 1.0]
