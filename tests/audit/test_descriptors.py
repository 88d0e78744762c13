"""Descriptors ignore what a copy may have gone through."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from metrics.pictures import picture_b
from siamese_diffusion.audit.descriptors import (
    COARSE,
    THUMB,
    TURNS,
    coarse_cropped,
    coarse_turned,
    fine_distances,
    standardise,
    turn_name,
    turned,
)
from siamese_diffusion.data.images import resize_image

SCENE = resize_image(picture_b(24), THUMB)


def test_eight_turns_are_all_different_and_invertible() -> None:
    found = [turned(SCENE, turn) for turn in range(TURNS)]
    np.testing.assert_array_equal(found[0], SCENE)
    assert len({picture.tobytes() for picture in found}) == TURNS
    np.testing.assert_array_equal(found[4], SCENE[:, ::-1])
    np.testing.assert_array_equal(found[6], SCENE[::-1])
    np.testing.assert_array_equal(turned(found[1], 3), SCENE)


def test_turns_are_told_in_words() -> None:
    assert [turn_name(turn) for turn in (0, 1, 4, 6)] == [
        "as is", "turned by 90 degrees", "mirrored", "mirrored and turned by 180 degrees"
    ]  # fmt: skip


def test_brightness_contrast_and_tint_change_nothing() -> None:
    planes = torch.from_numpy(SCENE).permute(2, 0, 1).float()
    factors = torch.tensor([0.5, 1.5, 0.9]).view(3, 1, 1)
    rows = standardise(torch.stack([planes, planes * factors + 17]))
    torch.testing.assert_close(rows[0], rows[1])
    assert float(rows[0].norm()) == pytest.approx(1.0)


def test_a_channel_without_contrast_counts_as_zero() -> None:
    planes = torch.from_numpy(SCENE).permute(2, 0, 1).float()
    planes[2] = 40.0
    row = standardise(planes).view(3, -1)
    assert bool((row[2] == 0).all())
    assert float(row.norm()) == pytest.approx(1.0)


def test_coarse_rows_of_a_turned_picture_are_those_of_the_plain_one() -> None:
    rows = coarse_turned(np.stack([SCENE, turned(SCENE, 4)]))
    assert rows.shape == (2, TURNS, 3 * COARSE**2)
    np.testing.assert_allclose(rows[1, 4], rows[0, 0], atol=1e-5)
    crops = coarse_cropped(SCENE[None])
    np.testing.assert_allclose(crops[0, 0], rows[0, 0], atol=1e-5)
    assert crops.shape == (1, 11, 3 * COARSE**2)


@pytest.mark.parametrize(("top", "left", "size"), [(0, 0, 64), (3, 0, 58), (10, 5, 51)])
def test_fine_distance_finds_the_crop(top: int, left: int, size: int) -> None:
    crop = resize_image(np.ascontiguousarray(SCENE[top : top + size, left : left + size]), THUMB)
    noise = np.random.default_rng(0).integers(0, 256, SCENE.shape).astype(np.uint8)
    near, far = fine_distances(np.stack([crop, crop]), np.stack([SCENE, noise]))
    assert near < (1e-5 if size == THUMB else 0.06)
    assert far > 0.5
