from __future__ import annotations

import pytest
import torch

from siamese_diffusion.core.errors import ConfigError
from siamese_diffusion.segmentation.base import IMAGENET_MEAN, IMAGENET_STD, Outputs
from siamese_diffusion.segmentation.segformer import SegFormer
from siamese_diffusion.segmentation.unet import UNet


@pytest.fixture(scope="module")
def unet() -> UNet:
    torch.manual_seed(0)
    return UNet()


def test_per_image_range_maps_to_zero_and_one(unet: UNet) -> None:
    picture = torch.linspace(10, 200, 3 * 16).round().to(torch.uint8).view(1, 3, 4, 4)
    prepared = unet.prepare(torch.cat([picture, torch.full_like(picture, 7)]))
    assert (float(prepared[0].min()), float(prepared[0].max())) == (0.0, 1.0)
    assert float(prepared[1].abs().max()) == 0.0  # a constant picture


def test_imagenet_statistics_centre_their_own_mean() -> None:
    model = SegFormer()
    mean = (torch.tensor(IMAGENET_MEAN) * 255).round().to(torch.uint8).view(1, 3, 1, 1)
    assert float(model.prepare(mean).abs().max()) < 0.5 / 255 / min(IMAGENET_STD) + 1e-6


def test_two_logits_become_the_difference(unet: UNet) -> None:
    logits = torch.randn(2, 2, 8, 8)
    z = unet.foreground(Outputs(logits), (8, 8))
    torch.testing.assert_close(z[:, 0].sigmoid(), logits.softmax(1)[:, 1])
    assert unet.foreground(Outputs(logits), (13, 7)).shape == (2, 1, 13, 7)


def test_the_default_map_is_stretched_per_image_and_a_constant_one_left_alone(unet: UNet) -> None:
    z = torch.stack([torch.linspace(-1, 1, 16).view(1, 4, 4), torch.full((1, 4, 4), 0.3)])
    p = unet.probability(z)
    assert float(p[0].min()) == 0 and float(p[0].max()) == pytest.approx(1)
    torch.testing.assert_close(p[1], z[1].sigmoid())


def test_a_side_that_cannot_be_halved_names_the_next_that_can(unet: UNet) -> None:
    with pytest.raises(ConfigError, match="350 x 352 pixels; sides must be multiples of 8") as e:
        unet(torch.zeros(1, 3, 350, 352))
    assert e.value.hint == "use 352 x 352"
