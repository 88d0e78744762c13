"""Losses against closed forms and literal loops."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from siamese_diffusion.segmentation.losses import (
    BASE_TEMPERATURE,
    MAX_SAMPLES,
    MAX_VIEWS,
    TEMPERATURE,
    cross_entropy,
    draw_views,
    pixel_contrast,
    pooled_dice_loss,
    soft_dice_loss,
    structure_loss,
)


def square(size: int = 64, low: int = 16, high: int = 40) -> Tensor:
    mask = torch.zeros(2, 1, size, size)
    mask[:, :, low:high, low:high] = 1
    return mask


def test_soft_dice_of_a_perfect_map_keeps_the_one_in_the_denominator() -> None:
    mask = square()
    s = float(mask[0].sum())
    loss = soft_dice_loss(200 * (mask - 0.5), mask)
    assert float(loss) == pytest.approx(1 - 2 * s / (2 * s + 1), abs=1e-6)


def test_structure_loss_without_weighting_holds_the_plain_mean_cross_entropy() -> None:
    torch.manual_seed(0)
    z, mask = torch.randn(2, 1, 64, 64), square()
    w = 1 + 5 * (F.avg_pool2d(mask, 31, 1, 15) - mask).abs()
    p = z.sigmoid()
    overlap = (w * p * mask).sum((1, 2, 3))
    iou = 1 - (overlap + 1) / ((w * (p + mask)).sum((1, 2, 3)) - overlap + 1)
    plain = F.binary_cross_entropy_with_logits(z, mask) + iou.mean()
    assert float(structure_loss(z, mask)) == pytest.approx(float(plain), rel=1e-6)
    bce = F.binary_cross_entropy_with_logits(z, mask, reduction="none")
    weighted = ((w * bce).sum((1, 2, 3)) / w.sum((1, 2, 3))).mean() + iou.mean()
    assert float(structure_loss(z, mask, weighted_bce=True)) == pytest.approx(float(weighted))
    assert abs(float(weighted - plain)) > 1e-4


def test_structure_loss_of_a_perfect_map_is_nearly_zero() -> None:
    mask = square()
    assert float(structure_loss(200 * (mask - 0.5), mask)) < 1e-3


def test_pooled_dice_does_not_see_which_image_a_pixel_is_in() -> None:
    z = torch.zeros(2, 2, 4, 4)
    z[:, 1] = 1.5
    apart = torch.zeros(2, 1, 4, 4)
    apart[0, :, :2] = 1
    spread = torch.zeros(2, 1, 4, 4)
    spread[:, :, :1] = 1
    assert float(pooled_dice_loss(z, apart)) == pytest.approx(float(pooled_dice_loss(z, spread)))


def test_pooled_dice_equals_its_formula() -> None:
    torch.manual_seed(0)
    z, mask = torch.randn(2, 2, 8, 8), (torch.rand(2, 1, 8, 8) < 0.3).float()
    p = z.softmax(1)
    expected = 0.0
    for k, truth in enumerate((1 - mask[:, 0], mask[:, 0])):
        dice = 2 * (p[:, k] * truth).sum() / ((p[:, k] + truth).sum() + 1e-6)
        expected += float(1 - dice) / 2
    assert float(pooled_dice_loss(z, mask)) == pytest.approx(expected, rel=1e-5)


def test_cross_entropy_equals_binary_cross_entropy_of_the_difference() -> None:
    torch.manual_seed(0)
    z, mask = torch.randn(2, 2, 8, 8), (torch.rand(2, 1, 8, 8) < 0.3).float()
    expected = F.binary_cross_entropy_with_logits(z[:, 1:] - z[:, :1], mask)
    assert float(cross_entropy(z, mask)) == pytest.approx(float(expected), rel=1e-5)


def literal_contrast(views: Tensor, classes: list[int]) -> float:
    """The double sum, one anchor and one positive at a time."""
    k, v, _ = views.shape
    z = [(classes[i], views[i, j].double()) for i in range(k) for j in range(v)]
    total = 0.0
    for a, (label, anchor) in enumerate(z):
        terms = []
        negatives = sum(math.exp(float(anchor @ o) / TEMPERATURE) for c, o in z if c != label)
        for b, (c, other) in enumerate(z):
            if b != a and c == label:
                s = float(anchor @ other) / TEMPERATURE
                terms.append(s - math.log(math.exp(s) + negatives))
        total -= TEMPERATURE / BASE_TEMPERATURE * sum(terms) / len(terms)
    return total / len(z)


def test_contrast_equals_its_double_sum() -> None:
    torch.manual_seed(0)
    views = F.normalize(torch.randn(3, 4, 8), dim=-1)
    found = pixel_contrast(views, torch.tensor([0, 1, 0]))
    assert float(found) == pytest.approx(literal_contrast(views, [0, 1, 0]), rel=1e-5)


def test_contrast_of_opposite_clusters_is_nearly_zero() -> None:
    views = torch.zeros(2, 10, 4)
    views[0, :, 0], views[1, :, 0] = 1, -1
    assert float(pixel_contrast(views, torch.tensor([0, 1]))) < 1e-5


def test_contrast_of_equal_embeddings_has_its_closed_form() -> None:
    m = 12
    views = torch.zeros(2, m, 4)
    views[..., 0] = 1
    expected = TEMPERATURE / BASE_TEMPERATURE * math.log(1 + m)
    assert float(pixel_contrast(views, torch.tensor([0, 1]))) == pytest.approx(expected, rel=1e-5)


def test_contrast_of_one_class_alone_is_zero() -> None:
    views = F.normalize(torch.randn(2, 5, 4), dim=-1)
    assert float(pixel_contrast(views, torch.tensor([1, 1]))) == pytest.approx(0, abs=1e-6)


def test_views_are_equally_many_of_each_class_and_image() -> None:
    torch.manual_seed(0)
    mask = square()
    place = torch.arange(64 * 64.0).view(1, 1, 64, 64).expand(2, 1, 64, 64)
    drawn = draw_views(place, mask, None)
    assert drawn is not None
    views, classes = drawn
    assert views.shape == (4, MAX_VIEWS, 1) and classes.tolist() == [0, 1, 0, 1]
    for group, label in zip(views[..., 0].long(), classes.tolist(), strict=True):
        assert len(set(group.tolist())) == MAX_VIEWS
        assert (mask[0].flatten()[group] == label).all()


def test_views_of_a_full_batch_fill_the_similarity_matrix() -> None:
    mask = square().repeat(8, 1, 1, 1)
    drawn = draw_views(torch.zeros(16, 2, 64, 64), mask, None)
    assert drawn is not None and drawn[0].shape == (32, MAX_SAMPLES // 32, 2)


def test_classes_of_a_hundred_pixels_or_fewer_are_left_out() -> None:
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., :10, :10] = 1
    drawn = draw_views(torch.zeros(1, 2, 64, 64), mask, None)
    assert drawn is not None and drawn[1].tolist() == [0]
    assert draw_views(torch.zeros(1, 2, 8, 8), torch.zeros(1, 1, 8, 8), None) is None


def test_mining_takes_half_of_the_views_where_the_prediction_is_wrong() -> None:
    torch.manual_seed(0)
    mask, predicted = square()[:1], square(high=30)[:1]
    place = torch.arange(64 * 64.0).view(1, 1, 64, 64)
    drawn = draw_views(place, mask, predicted)
    assert drawn is not None
    wrong = (mask != predicted).flatten()
    n_wrong = [int(wrong[group.long()].sum()) for group in drawn[0][..., 0]]
    assert n_wrong == [0, MAX_VIEWS // 2]  # background has no wrong pixel, so easy ones fill up
