"""The segmenter of the audit and its loss."""

from __future__ import annotations

import math

import pytest
import torch

from siamese_diffusion.audit.small_unet import SmallUNet, segmentation_loss


@pytest.mark.parametrize("size", [(8, 8), (16, 32), (64, 64)])
def test_logits_have_the_size_of_the_image(size: tuple[int, int]) -> None:
    assert SmallUNet()(torch.zeros(2, 3, *size)).shape == (2, 1, *size)


def test_it_is_small() -> None:
    assert 150_000 < sum(p.numel() for p in SmallUNet().parameters()) < 250_000


def test_every_weight_is_trained() -> None:
    torch.manual_seed(0)
    network = SmallUNet()
    mask = (torch.rand(2, 1, 16, 16) > 0.5).float()
    segmentation_loss(network(torch.randn(2, 3, 16, 16)), mask).backward()  # type: ignore[no-untyped-call]
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_images_do_not_see_each_other() -> None:
    torch.manual_seed(0)
    network, image = SmallUNet().eval(), torch.randn(3, 3, 16, 16)
    torch.testing.assert_close(network(image)[:1], network(image[:1]))


def test_the_loss_is_cross_entropy_plus_one_minus_soft_dice() -> None:
    logits = torch.tensor([[[[0.0, math.log(3)]]]])  # p = 1/2 and 3/4
    mask = torch.tensor([[[[0.0, 1.0]]]])
    entropy = -(math.log(1 / 2) + math.log(3 / 4)) / 2
    soft_dice = (2 * 3 / 4 + 1) / (1 / 2 + 3 / 4 + 1 + 1)
    expected = torch.tensor(entropy + 1 - soft_dice)
    torch.testing.assert_close(segmentation_loss(logits, mask), expected)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_certain_and_right_prediction_costs_nothing(value: float) -> None:
    mask = torch.full((2, 1, 4, 4), value)
    loss = segmentation_loss((mask * 2 - 1) * 50, mask)
    torch.testing.assert_close(loss, torch.tensor(0.0))
