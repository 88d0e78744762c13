from __future__ import annotations

import time

import numpy as np
import pytest

from siamese_diffusion.segmentation.counts import (
    Counts,
    count_image,
    stack_counts,
    threshold_counts,
)


def row(*values: int) -> np.ndarray:
    return np.array([values], np.uint8)


def counted(grey: np.ndarray, truth: np.ndarray) -> Counts:
    return count_image(grey, grey >= 128, truth.astype(bool))


def test_every_pixel_is_counted_once() -> None:
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (31, 17), dtype=np.uint8)
    truth = rng.random((31, 17)) < 0.3
    counts = count_image(grey, rng.random((31, 17)) < 0.5, truth)
    assert counts.tp + counts.fp + counts.fn + counts.tn == 31 * 17
    assert counts.inside.sum() == truth.sum()
    assert counts.outside.sum() == (~truth).sum()


def test_the_four_counts_are_of_the_hard_decision() -> None:
    counts = counted(row(255, 200, 100, 0), row(1, 0, 1, 0))
    assert [int(v[0]) for v in (counts.tp, counts.fp, counts.fn, counts.tn)] == [1, 1, 1, 1]


def test_a_map_is_stretched_to_all_levels() -> None:
    counts = counted(row(10, 20, 30), row(1, 0, 1))
    assert np.flatnonzero(counts.inside[0]).tolist() == [0, 255]
    assert np.flatnonzero(counts.outside[0]).tolist() == [127]  # floor(127.5)
    assert not counts.constant[0]


def test_a_constant_map_keeps_its_level_and_is_marked() -> None:
    counts = counted(row(7, 7, 7), row(1, 0, 0))
    assert np.flatnonzero(counts.inside[0]).tolist() == [7]
    assert counts.constant[0]


def test_a_full_map_leaves_its_histogram_alone() -> None:
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    counts = counted(grey, np.zeros((16, 16)))
    assert (counts.outside[0] == 1).all()
    assert counts.empty[0]


def test_threshold_zero_takes_the_whole_image() -> None:
    tp, fp, fn = threshold_counts(counted(row(255, 128, 64, 0), row(1, 1, 0, 0)))
    assert (tp[0, 0], fp[0, 0], fn[0, 0]) == (2, 2, 0)
    assert (tp[0, 255], fp[0, 255], fn[0, 255]) == (1, 0, 1)


def test_shapes_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(1, 3\), decision \(1, 3\) and truth \(1, 2\)"):
        count_image(row(1, 2, 3), np.ones((1, 3), bool), np.ones((1, 2), bool))


def test_nothing_cannot_be_stacked() -> None:
    with pytest.raises(ValueError, match="no counts"):
        stack_counts([])


def test_thousands_of_images_a_minute() -> None:
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (352, 352), dtype=np.uint8)
    truth = rng.random((352, 352)) < 0.3
    start = time.process_time()
    for _ in range(40):
        count_image(grey, grey > 127, truth)
    assert 40 / (time.process_time() - start) * 60 > 3000
