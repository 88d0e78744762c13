"""The structure loss by hand and at its edges."""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F

from siamese_diffusion.objectives.refinement import structure_loss


def test_with_equal_weights_it_is_cross_entropy_and_soft_iou() -> None:
    # a mask of ones: away from the border (window 1) every weight is 1
    logits = torch.tensor([[[[0.0, 2.0], [-1.0, 1.0]]]])
    mask = torch.ones(1, 1, 2, 2)
    p = torch.sigmoid(logits)
    iou = (p.sum() + 1) / (p.sum() + 4 - p.sum() + 1)
    expected = F.binary_cross_entropy(p, mask) + 1 - iou
    torch.testing.assert_close(structure_loss(logits, mask, window=1), expected[None])


def test_pixels_at_the_outline_weigh_more() -> None:
    mask = torch.zeros(1, 1, 9, 9)
    mask[..., 3:6, 3:6] = 1
    right = (mask * 2 - 1) * 4
    wrong_at_outline, wrong_far = right.clone(), right.clone()
    wrong_at_outline[..., 3, 3] = -4
    wrong_far[..., 0, 0] = 4
    found = [structure_loss(x, mask, window=3) for x in (wrong_at_outline, wrong_far)]
    assert float(found[0]) > float(found[1]) > float(structure_loss(right, mask, window=3))


def test_weights_by_hand_on_a_row() -> None:
    mask = torch.tensor([[[[0.0, 1.0, 1.0]]]])
    logits = torch.zeros_like(mask)
    # torch pads with zeros and divides by 9: means 1/9, 2/9, 2/9
    w = [1 + 5 * 1 / 9, 1 + 5 * 7 / 9, 1 + 5 * 7 / 9]
    inter, union = 0.5 * (w[1] + w[2]), 0.5 * sum(w) + w[1] + w[2]
    expected = math.log(2) + 1 - (inter + 1) / (union - inter + 1)
    found = structure_loss(logits, mask, window=3)
    torch.testing.assert_close(found, torch.tensor([expected]))


def test_each_image_has_its_own_loss_and_gradient_flows() -> None:
    draws = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 1, 8, 8, generator=draws, requires_grad=True)
    mask = (torch.rand(2, 1, 8, 8, generator=draws) > 0.5).float()
    both = structure_loss(logits, mask, window=3)
    alone = structure_loss(logits[1:], mask[1:], window=3)
    torch.testing.assert_close(both[1:], alone)
    torch.autograd.backward(both[0])
    assert logits.grad is not None
    assert bool(logits.grad[0].any()) and not bool(logits.grad[1].any())
