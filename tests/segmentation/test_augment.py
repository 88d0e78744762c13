from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from siamese_diffusion.core.seeding import generator
from siamese_diffusion.segmentation.augment import (
    Draw,
    Photometric,
    apply,
    change_colours,
    draw,
)
from siamese_diffusion.segmentation.settings import AugmentSettings


def pair(size: int = 32) -> tuple[Tensor, Tensor]:
    """A picture whose red channel is its mask, so that they can be compared after any move."""
    mask = torch.zeros(size, size, dtype=torch.uint8)
    mask[4:14, 8:28] = 255
    image = torch.stack([mask, torch.full_like(mask, 9), torch.full_like(mask, 7)])
    return image, mask


@pytest.mark.parametrize(
    "change",
    [
        Draw(flip_horizontal=True),
        Draw(flip_vertical=True),
        Draw(turns=1),
        Draw(turns=3, flip_vertical=True),
    ],
)
def test_image_and_mask_move_together(change: Draw) -> None:
    image, mask = apply(*pair(), change)
    assert torch.equal(image[0], mask)
    assert not torch.equal(mask, pair()[1])


def test_flips_and_turns_are_numpys() -> None:
    _, mask = pair()
    assert np.array_equal(apply(*pair(), Draw(flip_horizontal=True))[1], np.fliplr(mask))
    assert np.array_equal(apply(*pair(), Draw(turns=1))[1], np.rot90(mask))


def test_a_free_turn_by_ninety_degrees_is_a_quarter_turn() -> None:
    turned, quarter = apply(*pair(), Draw(angle=90.0)), apply(*pair(), Draw(turns=1))
    assert torch.equal(turned[1], quarter[1])


def test_a_free_turn_adds_no_value_to_the_mask_and_keeps_it_on_the_picture() -> None:
    image, mask = apply(*pair(), Draw(angle=25.0))
    assert set(np.unique(mask.numpy()).tolist()) == {0, 255}
    assert float(((image[0] > 127) == (mask > 127)).float().mean()) > 0.98


def test_no_change_gives_the_same_pair() -> None:
    image, mask = apply(*pair(), Draw())
    assert torch.equal(image, pair()[0]) and torch.equal(mask, pair()[1])


def test_colours_change_the_image_alone() -> None:
    change = Draw(photometric=Photometric(20.0, 1.0, 1.0, 0.0, False))
    image, mask = apply(*pair(), change)
    assert torch.equal(mask, pair()[1])
    assert image[1, 0, 0] == 29 and image[0, 5, 10] == 255


def test_contrast_multiplies_and_saturation_zero_is_grey() -> None:
    image, _ = pair()
    doubled = change_colours(image, Photometric(0.0, 2.0, 1.0, 0.0, True))
    assert doubled[1, 0, 0] == 18
    grey = change_colours(image, Photometric(0.0, 1.0, 0.0, 0.0, False))
    assert torch.equal(grey[0], grey[1]) and torch.equal(grey[1], grey[2])


def test_a_hue_of_a_third_turns_red_to_green() -> None:
    red = torch.zeros(3, 2, 2, dtype=torch.uint8)
    red[0] = 200
    turned = change_colours(red, Photometric(0.0, 1.0, 1.0, 120.0, False))
    assert turned[1].min() > 190 and turned[0].max() < 12


def test_draws_follow_their_stream_and_their_settings() -> None:
    settings = AugmentSettings(
        flip_horizontal=0.5, flip_vertical=0.25, quarter_turns=0.5, rotation=90, photometric=True
    )
    draws = [draw(settings, generator(0, "x", i)) for i in range(800)]
    assert draws[3] == draw(settings, generator(0, "x", 3))
    assert np.mean([d.flip_horizontal for d in draws]) == pytest.approx(0.5, abs=0.06)
    assert np.mean([d.flip_vertical for d in draws]) == pytest.approx(0.25, abs=0.06)
    assert np.mean([d.turns > 0 for d in draws]) == pytest.approx(0.5 * 0.75, abs=0.06)
    assert max(abs(d.angle) for d in draws) <= 90
    hues = [d.photometric.hue for d in draws if d.photometric is not None]
    assert max(map(abs, hues)) <= 36 and np.mean([h == 0 for h in hues]) == pytest.approx(
        0.5, abs=0.06
    )
    assert draw(AugmentSettings(), generator(0, "x", 0)) == Draw()
