"""The worked examples of the protocol, a literal restatement, and the paper's own columns."""

from __future__ import annotations

import math

import numpy as np
import pytest

from reference.literal_scores import Image, scores, sweep
from siamese_diffusion.core.errors import ConfigError
from siamese_diffusion.segmentation.counts import Counts, count_image, stack_counts
from siamese_diffusion.segmentation.definitions import (
    DEFINITIONS,
    PROTOCOLS,
    Absent,
    find_protocols,
    image_values,
    interval,
    score_set,
    score_sets,
    sweep_curves,
)

# Table 2 of the paper: mDice, mIoU on EndoScene, ClinicDB, Kvasir, ColonDB, ETIS, then Overall.
SIZES = (60, 62, 100, 380, 196)
TABLE_2 = {
    "SANet": (88.8, 81.5, 91.6, 85.9, 90.4, 84.7, 75.3, 67.0, 75.0, 65.4, 79.4, 71.4),
    "SANet + Copy-Paste": (89.7, 83.0, 90.2, 85.1, 90.3, 84.8, 77.7, 70.0, 77.4, 68.8, 81.1, 73.7),
    "SANet + Ours": (90.4, 83.9, 93.0, 88.1, 91.2, 85.5, 79.1, 71.3, 81.1, 73.4, 83.0, 75.8),
    "Polyp-PVT": (90.0, 83.3, 93.7, 88.9, 91.7, 86.4, 80.8, 72.7, 78.7, 70.6, 83.3, 76.0),
    "Polyp-PVT + Ours": (90.4, 83.8, 93.9, 89.3, 91.1, 85.9, 81.7, 74.0, 81.5, 73.4, 84.4, 77.3),
    "CTNet": (90.8, 84.4, 93.6, 88.7, 91.7, 86.3, 81.3, 73.4, 81.0, 73.4, 84.2, 77.0),
    "CTNet + ControlNet": (90.2, 84.1, 92.3, 87.5, 91.7, 86.9, 81.4, 73.5, 79.5, 71.7, 83.7, 76.6),
    "CTNet + Ours": (90.1, 83.6, 93.8, 88.9, 92.9, 89.1, 83.8, 75.8, 79.5, 72.0, 85.1, 78.1),
}


def from_counts(*rows: tuple[int, int, int, int]) -> Counts:
    """Images with given (tp, fp, fn, tn); the map is the decision."""
    images = []
    for tp, fp, fn, tn in rows:
        decision = np.repeat([True, True, False, False], [tp, fp, fn, tn])
        truth = np.repeat([True, False, True, False], [tp, fp, fn, tn])
        images.append(count_image(255 * decision.astype(np.uint8), decision, truth))
    return stack_counts(images)


def random_images(seed: int) -> list[Image]:
    rng = np.random.default_rng(seed)
    images: list[Image] = []
    for _ in range(int(rng.integers(1, 6))):
        shape = tuple(int(v) for v in rng.integers(1, 9, 2))
        low, high = sorted(int(v) for v in rng.integers(0, 256, 2))
        grey = rng.integers(low, high + 1, shape, dtype=np.uint8)
        share = float(rng.choice([0.0, 0.1, 0.5, 1.0]))
        truth = rng.random(shape) < share
        images.append((grey, grey >= 128, truth))
    return images


def test_the_four_pixel_example_of_the_sweep() -> None:
    grey = np.array([[255, 128, 64, 0]], np.uint8)
    counts = count_image(grey, grey >= 128, np.array([[True, True, False, False]]))
    dice, iou = (curve[0] for curve in sweep_curves(counts))
    assert (dice[0], iou[0]) == (2 / 3, 1 / 2)
    assert set(dice[1:65]) == {4 / 5} and set(iou[1:65]) == {2 / 3}
    assert set(dice[65:129]) == {1.0}
    assert set(dice[129:]) == {2 / 3} and set(iou[129:]) == {1 / 2}
    found = score_set(counts, resamples=0)
    assert found["sweep_fg"].dice == pytest.approx(0.783333, abs=5e-7)
    assert found["sweep_fg"].iou == pytest.approx(0.666667, abs=5e-7)
    assert (found["sweep_fg_max"].dice, found["sweep_fg_max"].iou) == (1.0, 1.0)


def test_the_two_image_example_of_all_other_definitions() -> None:
    found = score_set(from_counts((15, 3, 5, 77), (30, 0, 10, 60)), resamples=0)
    expected = {
        "image_fg": (0.823308, 0.701087),
        "image_2c": (0.880078, 0.791300),
        "pooled_fg": (0.833333, 0.714286),
        "pooled_2c": (0.885845, 0.799078),
    }
    for name, (dice, iou) in expected.items():
        assert found[name].dice == pytest.approx(dice, abs=5e-7)
        assert found[name].iou == pytest.approx(iou, abs=5e-7)
    unet = PROTOCOLS["isic-unet"]
    assert found[unet.dice].dice == pytest.approx(0.833333, abs=5e-7)
    assert found[unet.iou].iou == pytest.approx(0.799078, abs=5e-7)


@pytest.mark.parametrize("absent", ["one", "skip"])
@pytest.mark.parametrize("seed", range(40))
def test_definitions_equal_their_literal_restatement(seed: int, absent: Absent) -> None:
    images = random_images(seed)
    if absent == "skip":
        images = [image for image in images if image[1].any() or image[2].any()]
        if not images:
            return
    expected = scores(images, absent)
    found = score_set(
        stack_counts([count_image(*image) for image in images]), absent=absent, resamples=0
    )
    for name in DEFINITIONS:
        assert found[name].dice == pytest.approx(expected[name][0], abs=1e-12), name
        assert found[name].iou == pytest.approx(expected[name][1], abs=1e-12), name


def test_sweep_curves_equal_the_literal_ones() -> None:
    images = random_images(3)
    curves = sweep_curves(stack_counts([count_image(*image) for image in images]))
    for found, expected in zip(curves, sweep(images), strict=True):
        np.testing.assert_allclose(found.mean(0), expected, atol=1e-12)


@pytest.mark.parametrize("row", TABLE_2)
@pytest.mark.parametrize("column", [0, 1])
def test_overall_reproduces_the_papers_column(row: str, column: int) -> None:
    """Each set is a stand-in whose foreground IoU (and so Dice) per image is the printed value."""
    values = TABLE_2[row][column:10:2]
    sets = []
    for size, value in zip(SIZES, values, strict=True):
        tp = round(10 * value)  # of 1,000 pixels of the union
        sets.append(from_counts(*[(tp, 0, 1000 - tp, 0)] * size))
    assert 100 * score_sets(sets, resamples=0)["image_fg"].iou == pytest.approx(
        TABLE_2[row][10 + column], abs=0.0501
    )


def test_overall_is_the_mean_over_all_images_for_averaged_definitions() -> None:
    first, second = from_counts((5, 1, 2, 9)), from_counts((1, 1, 1, 1), (7, 0, 0, 3), (0, 2, 4, 5))
    together = score_set(stack_counts([first, second]), resamples=0)
    apart = score_sets([first, second], resamples=0)
    for name in ("sweep_fg", "image_fg", "image_2c"):
        assert apart[name].dice == pytest.approx(together[name].dice)
    assert apart["pooled_fg"].dice != pytest.approx(together["pooled_fg"].dice)


def test_a_model_of_background_alone_scores_as_in_table_4() -> None:
    """The DFMGAN row, 49.59 / 49.19: foreground 0, background Dice 0.9918."""
    share = (2 - 2 * 0.9918) / (2 - 0.9918)  # of the foreground: 0.9918 = 2 (1 - s) / (2 - s)
    n = 1_000_000
    counts = from_counts((0, 0, round(share * n), n - round(share * n)))
    found = score_set(counts, resamples=0)["image_2c"]
    assert round(100 * found.dice, 2) == 49.59
    assert round(100 * found.iou, 2) == 49.19


def test_absent_classes_count_one_or_are_left_out() -> None:
    counts = from_counts((0, 0, 0, 10), (5, 5, 0, 0))
    one = score_set(counts, resamples=0)
    skip = score_set(counts, absent="skip", resamples=0)
    assert one["image_fg"].dice == pytest.approx((1 + 2 / 3) / 2)
    assert skip["image_fg"].dice == pytest.approx(2 / 3)
    assert np.isnan(image_values(counts, absent="skip")["image_fg"][0][0])


def test_an_empty_truth_counts_zero_in_the_sweep_whatever_is_predicted() -> None:
    assert score_set(from_counts((0, 0, 0, 10)), resamples=0)["sweep_fg"].dice == 0


def test_a_constant_black_map_counts_at_threshold_zero_alone() -> None:
    black = np.zeros((2, 2), np.uint8)
    counts = count_image(black, black > 0, np.array([[True, True], [False, False]]))
    assert score_set(counts, resamples=0)["sweep_fg"].dice == pytest.approx(2 / 3 / 256)


def test_mean_iou_is_never_below_that_of_the_mean_dice() -> None:
    for seed in range(20):
        counts = stack_counts([count_image(*image) for image in random_images(seed)])
        for name in ("image_fg", "image_2c", "sweep_fg"):
            score = score_set(counts, resamples=0)[name]
            assert score.iou >= score.dice / (2 - score.dice) - 1e-12


def test_bootstrap_intervals_hold_the_value_and_shrink_with_more_images() -> None:
    rng = np.random.default_rng(0)

    def drawn(n: int) -> Counts:
        return from_counts(*[(int(t), 10, 40 - int(t), 50) for t in rng.integers(10, 40, n)])

    few, many = score_set(drawn(20)), score_set(drawn(400))
    for name in DEFINITIONS:
        low, high = many[name].dice_interval or (math.nan, math.nan)
        assert low <= many[name].dice <= high
    width = [s["image_fg"].dice_interval or (0, 0) for s in (few, many)]
    assert width[1][1] - width[1][0] < width[0][1] - width[0][0]


def test_the_bootstrap_interval_agrees_with_the_normal_one_for_a_mean() -> None:
    rng = np.random.default_rng(1)
    counts = from_counts(*[(int(t), 0, 100 - int(t), 50) for t in rng.integers(20, 80, 300)])
    values = image_values(counts)["image_fg"][1]
    half = 1.96 * values.std(ddof=1) / math.sqrt(300)
    low, high = score_set(counts, resamples=4000)["image_fg"].iou_interval or (0, 0)
    assert low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_an_interval_of_nothing_is_undefined() -> None:
    assert all(math.isnan(end) for end in interval(np.array([np.nan])))


def test_an_unknown_protocol_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"unknown protocol 'polip'; did you mean 'polyp'") as e:
        find_protocols("polip")
    assert e.value.hint is not None and "isic-unet" in e.value.hint
    assert list(find_protocols("all")) == list(PROTOCOLS)
