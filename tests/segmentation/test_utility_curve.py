from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from siamese_diffusion.segmentation.utility_curve import (
    NO_GAIN,
    Floats,
    conclusions,
    describe_curve,
    make_curve,
    paired_gain,
)

REAL = ("real", 0.0)


def scores(mean: float, *, seeds: int = 3, images: int = 200, spread: float = 0.0) -> Floats:
    """Images of differing difficulty, the same in every call; seeds differ by `spread`."""
    rng = np.random.default_rng(0)
    hard = rng.normal(0, 0.1, images)
    noise = np.random.default_rng(int(1e6 * mean)).normal(0, 0.02, (seeds, images))
    shift = spread * np.linspace(-1, 1, seeds)[:, None] if seeds > 1 else 0.0
    return np.asarray(mean + hard + noise + shift)


def test_one_seed_gives_students_paired_interval() -> None:
    with_, without = scores(0.72, seeds=1), scores(0.70, seeds=1)
    expected = stats.ttest_rel(with_[0], without[0]).confidence_interval(0.95)
    gain = paired_gain(with_, without)
    assert (gain.low, gain.high) == pytest.approx((expected.low, expected.high))


def test_equal_images_give_students_interval_over_seeds() -> None:
    with_ = np.repeat([[0.70], [0.74], [0.75]], 50, 1)
    without = np.repeat([[0.69], [0.70], [0.71]], 50, 1)
    expected = stats.ttest_rel(with_[:, 0], without[:, 0]).confidence_interval(0.95)
    gain = paired_gain(with_, without)
    assert (gain.low, gain.high) == pytest.approx((expected.low, expected.high))


def test_difficulty_of_images_cancels_and_spread_of_seeds_does_not() -> None:
    calm = paired_gain(scores(0.72), scores(0.70))
    rough = paired_gain(scores(0.72, spread=0.03), scores(0.70))
    assert calm.is_significant and calm.high - calm.low < 0.02
    assert not rough.is_significant


def test_more_comparisons_widen_the_interval() -> None:
    one, many = (paired_gain(scores(0.72), scores(0.70), comparisons=m) for m in (1, 8))
    assert many.low < one.low < one.high < many.high


def test_no_difference_has_no_width() -> None:
    same = scores(0.7)
    gain = paired_gain(same, same)
    assert (gain.low, gain.mean, gain.high) == (0, 0, 0) and not gain.is_significant


def test_scores_that_cannot_be_paired_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(3, 200\) and \(3, 199\) cannot be paired"):
        paired_gain(scores(0.7), scores(0.7)[:, 1:])


def test_the_knee_is_the_first_fold_that_the_best_does_not_exceed() -> None:
    curve = make_curve(
        {
            REAL: scores(0.70),
            ("masks", 1.0): scores(0.73),
            ("masks", 2.0): scores(0.76),
            ("masks", 3.0): scores(0.7605),
        },
        real=REAL,
        baselines=(),
    )
    assert curve.knees == {"masks": 2.0} and curve.comparisons == 3
    assert "masks: 2 folds are enough, with a gain of +6" in conclusions(curve)[0]


def test_no_gain_is_said_plainly() -> None:
    curve = make_curve(
        {REAL: scores(0.70), ("masks", 1.0): scores(0.7001), ("masks", 2.0): scores(0.69)},
        real=REAL,
        baselines=(),
    )
    assert curve.knees == {"masks": None}
    assert NO_GAIN in conclusions(curve)[0] and "at 1 folds" in conclusions(curve)[0]


def test_baselines_have_gains_and_no_knee() -> None:
    curve = make_curve(
        {REAL: scores(0.70), ("copy-paste", 1.0): scores(0.74), ("masks", 1.0): scores(0.73)},
        real=REAL,
        baselines=("copy-paste",),
    )
    assert list(curve.knees) == ["masks"]
    gains = {p.arm: p.gain for p in curve.points}
    assert gains["real"] is None and gains["copy-paste"] is not None


def test_the_page_shows_every_point_and_warns_of_a_single_seed() -> None:
    curve = make_curve(
        {REAL: scores(0.70, seeds=1), ("masks", 0.5): scores(0.73, seeds=1)},
        real=REAL,
        baselines=(),
    )
    page = describe_curve(curve, "Dice")
    assert "spread between seeds is unknown" in page
    real, masks = curve.points
    assert f"| real | 0 | {100 * real.score:.2f} |" in page
    assert masks.gain is not None
    assert f"| masks | 0.5 | {100 * masks.score:.2f} |" in page
    assert f"{100 * masks.gain.low:+.2f} to {100 * masks.gain.high:+.2f} |" in page
