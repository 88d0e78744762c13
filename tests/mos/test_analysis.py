"""The numbers of a study against a table counted by hand."""

from __future__ import annotations

import json

import pytest

from siamese_diffusion.mos.analysis import Analysis, analyse
from siamese_diffusion.mos.statistics import wilson
from siamese_diffusion.mos.store import Rating

# Two real images, two of method a, two of method b. Rater 1 sees r0 again, rater 2 sees a1.
SOURCES = {"r0": "real", "r1": "real", "a0": "a", "a1": "a", "b0": "b", "b1": "b"}
ORDERS = {
    "rater-1": ["r0", "a0", "b0", "r1", "a1", "r0", "b1"],
    "rater-2": ["a1", "b1", "r0", "a0", "r1", "a1", "b0"],
}
#                  vote, confidence in the order of the screens
GIVEN = {
    "rater-1": [(1, 10), (1, 6), (0, 8), (1, 9), (0, 4), (0, 7), (0, 10)],
    "rater-2": [(1, 5), (0, 3), (1, 8), (1, 2), (0, 6), (1, 9), (1, 0)],
}


def ratings(given: dict[str, list[tuple[int, int]]] = GIVEN) -> list[Rating]:
    return [
        Rating(rater, position, ORDERS[rater][position], bool(vote), confidence, 2.0 + position)
        for rater, answers in given.items()
        for position, (vote, confidence) in enumerate(answers)
    ]


def run(rows: list[Rating], seed: int = 0) -> Analysis:
    return analyse(rows, SOURCES, ORDERS, resamples=200, seed=seed)


def test_mos_and_confidence_count_first_looks_only() -> None:
    # First looks:  r0: 1/10, 1/8   r1: 1/9, 0/6   a0: 1/6, 1/2   a1: 0/4, 1/5
    #               b0: 0/8, 1/0    b1: 0/10, 0/3
    found = run(ratings()).sources
    assert {n: (s.real, s.n, s.mos) for n, s in found.items()} == {
        "real": (3, 4, 0.75),
        "a": (3, 4, 0.75),
        "b": (1, 4, 0.25),
    }
    assert {n: s.confidence for n, s in found.items()} == {
        "real": (10 + 8 + 9 + 6) / 4,
        "a": (6 + 2 + 4 + 5) / 4,
        "b": (8 + 0 + 10 + 3) / 4,
    }
    assert found["a"].confidence_weighted == pytest.approx((6 + 2 + 5) / 17)
    assert found["b"].confidence_weighted == 0.0  # its one vote for real has no confidence
    assert [s.missing for s in found.values()] == [0, 0, 0]


def test_intervals_of_images_hold_both_raters_together() -> None:
    # Images of a have shares 1 and 0.5: means of two drawn images are 1, 0.75 or 0.5.
    interval = run(ratings()).sources["a"].interval_images
    assert interval is not None
    assert (interval.low, interval.high) == (0.5, 1.0)


def test_each_rater_has_shares_with_wilson_intervals() -> None:
    by_rater = run(ratings()).sources["b"].by_rater
    assert (by_rater["rater-1"].real, by_rater["rater-1"].n) == (0, 2)
    assert (by_rater["rater-2"].real, by_rater["rater-2"].share) == (1, 0.5)
    assert by_rater["rater-2"].interval == wilson(1, 2)
    assert by_rater["rater-1"].confidence == 9.0


def test_right_answers_time_and_progress_of_each_rater() -> None:
    first, second = run(ratings()).raters.values()
    # Rater 1: r0, b0, r1, a1, b1 right, a0 wrong. Rater 2: b1 and r0 right.
    assert (first.right, first.n, first.answered, first.screens) == (5, 6, 7, 7)
    assert (second.right, second.n) == (2, 6)
    assert second.accuracy == pytest.approx(2 / 6)
    assert first.seconds == 5.0  # the middle one of 2 to 8


def test_repeats_give_self_consistency() -> None:
    found = run(ratings())
    # r0: real then synthetic, 10 then 7; a1: real twice, 5 then 9.
    assert (found.consistency.n, found.consistency.same) == (2, 1)
    assert found.consistency.confidence_change == 3.5
    assert found.consistency.interval == wilson(1, 2)
    assert found.raters["rater-1"].consistency.same == 0
    assert found.raters["rater-2"].consistency.same == 1


def test_agreement_over_all_sources_and_over_each() -> None:
    found = run(ratings()).agreement
    # Of six images r0, a0 and b1 got equal votes: observed 1/2. Seven of twelve votes are real:
    # by chance (7/12)^2 + (5/12)^2 = 74/144.
    assert found["all"].kappa == pytest.approx((0.5 - 74 / 144) / (1 - 74 / 144))
    assert (found["all"].items, found["all"].raters) == (6, 2)
    # a: one of two equal; three of four real.
    assert found["a"].kappa == pytest.approx((0.5 - 10 / 16) / (1 - 10 / 16))
    assert found["all synthetic"].items == 4


def test_comparisons_are_paired_by_rater_and_adjusted() -> None:
    found = {(c.first, c.second): c for c in run(ratings()).comparisons}
    assert list(found) == [("a", "b"), ("a", "real"), ("b", "real")]
    pair = found["a", "b"]
    # Rater 1: 0.5 - 0; rater 2: 1 - 0.5.
    assert pair.by_rater == {"rater-1": 0.5, "rater-2": 0.5}
    assert pair.difference == 0.5
    assert (pair.images, pair.n) == ((2, 2), (4, 4))
    assert pair.test is not None
    # Sums of votes a: 2, 1; b: 1, 0. Of the six splits {2, 1}, {1, 0} and their mirrors (the two
    # ones are different images) give a difference as large: 4 of 6.
    assert (pair.test.exact, pair.test.splits) == (True, 6)
    assert pair.test.p == pytest.approx(4 / 6)
    assert [c.p_holm for c in found.values()] == [1.0, 1.0, 1.0]


def test_missing_ratings_are_ignored_and_counted() -> None:
    rows = [r for r in ratings() if not (r.rater == "rater-2" and r.position >= 3)]
    found = run(rows)
    a = found.sources["a"]
    # Left: a0 by rater 1 (real), a1 by both (synthetic, real).
    assert (a.n, a.missing, a.real) == (3, 1, 2)
    assert a.mos == pytest.approx(2 / 3)
    assert found.agreement["all"].items == 3
    assert found.agreement["all"].left_out == 3
    assert (found.raters["rater-2"].answered, found.raters["rater-2"].n) == (3, 3)
    assert found.consistency.n == 1


def test_a_rater_who_has_not_begun_changes_nothing_but_the_counts() -> None:
    rows = [r for r in ratings() if r.rater == "rater-1"]
    found = run(rows)
    assert found.sources["real"].raters == 1
    assert found.sources["real"].missing == 2
    assert found.raters["rater-2"].accuracy is None
    assert found.agreement["all"].kappa is None  # one rater agrees with nobody
    assert found.comparisons[0].by_rater["rater-2"] is None
    assert found.comparisons[0].difference == 0.5


def test_the_second_look_is_told_by_the_plan_not_by_what_is_there() -> None:
    rows = [r for r in ratings() if not (r.rater == "rater-1" and r.position == 0)]
    found = run(rows)
    assert found.sources["real"].n == 3
    assert found.consistency.n == 1


def test_equal_seeds_give_equal_numbers_and_all_of_it_is_json() -> None:
    first, second = run(ratings(), seed=3), run(ratings(), seed=3)
    assert first == second
    content = json.loads(json.dumps(first.as_dict(), allow_nan=False))
    assert content["sources"]["a"]["by_rater"]["rater-1"]["n"] == 2
    assert "permutation test over images" in content["protocol"]


def test_a_rating_outside_the_plan_is_refused() -> None:
    stray = Rating("rater-1", 1, "b1", True, 5, 1.0)
    with pytest.raises(ValueError, match=r"item b1 at position 1 by rater-1 .* \(there: a0\)"):
        run([stray])
    with pytest.raises(ValueError, match=r"by rater-9 is not in the plan \(there: None\)"):
        run([Rating("rater-9", 0, "r0", True, 5, 1.0)])
