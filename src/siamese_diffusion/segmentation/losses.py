"""Losses of the segmenters as pure functions; where a release departs from its paper, a switch.

Logits z are (B, 1, H, W) or (B, 2, H, W) float, masks m (B, 1, H, W) float in [0, 1]. Every
function returns a scalar.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

TEMPERATURE = 0.1
BASE_TEMPERATURE = 0.07
MAX_SAMPLES = 1024  # embeddings in the similarity matrix
MAX_VIEWS = 100  # embeddings of one class in one image


def soft_dice_loss(z: Tensor, m: Tensor) -> Tensor:
    """1 - 2 sum(p m) / (sum p + sum m + 1), mean over images; the 1 is in the denominator alone.

    Source: SANet's released code.
    """
    p = z.sigmoid()
    overlap = (p * m).sum((1, 2, 3))
    total = (p + m).sum((1, 2, 3)) + 1
    return (1 - 2 * overlap / total).mean()


def structure_loss(z: Tensor, m: Tensor, *, weighted_bce: bool = False) -> Tensor:
    """Cross-entropy and IoU that count boundaries up to six times, mean over images.

    Args:
        weighted_bce: The papers weight both parts. The released code of PraNet, Polyp-PVT and
            CTNet asks for an average where it means none, so that its cross-entropy is the plain
            mean; False is that.

    Source: F3Net and PraNet; Polyp-PVT (arXiv 2108.06932).
    """
    w = 1 + 5 * (F.avg_pool2d(m, 31, 1, 15) - m).abs()
    if weighted_bce:
        bce = F.binary_cross_entropy_with_logits(z, m, reduction="none")
        first = (w * bce).sum((2, 3)) / w.sum((2, 3))
    else:
        first = F.binary_cross_entropy_with_logits(z, m)
    p = z.sigmoid()
    overlap = (w * p * m).sum((2, 3))
    union = (w * (p + m)).sum((2, 3)) - overlap
    return (first + 1 - (overlap + 1) / (union + 1)).mean()


def pooled_dice_loss(z: Tensor, m: Tensor) -> Tensor:
    """1 - Dice of softmax probabilities, its sums over the whole batch, mean of two classes.

    Source: the survey code of U-Net (Awesome-U-Net).
    """
    p = z.softmax(1)
    truth = torch.cat([1 - m, m], 1)
    dice = 2 * (p * truth).sum((0, 2, 3)) / ((p + truth).sum((0, 2, 3)) + 1e-6)
    return 1 - dice.mean()


def cross_entropy(z: Tensor, m: Tensor) -> Tensor:
    """Cross-entropy of two classes, mean over pixels; the mask is cut at one half."""
    return F.cross_entropy(z, (m[:, 0] > 0.5).long())


def draw_views(
    embedding: Tensor, m: Tensor, predicted: Tensor | None
) -> tuple[Tensor, Tensor] | None:
    """Draw equally many pixels of every class in every image for the contrast.

    Classes with no more than 100 pixels in an image are left out. Half of the views come from
    pixels that `predicted` has wrong and half from the others, as far as there are enough; with
    None, which is what the released code amounts to (its prediction is the arg-max of a single
    channel), all come from the whole class at random.

    Args:
        embedding: (B, D, H, W).
        m: Masks; cut at one half, as fractions at borders would be classes of their own.
        predicted: Decisions (B, 1, H, W) in {0, 1}, or None.

    Returns:
        Views (K, V, D) and their classes (K,) for K pairs of image and class; None if there are
        none.
    """
    truth = (m > 0.5).flatten(1)
    pairs = [
        (image, label)
        for image in range(len(m))
        for label in (False, True)
        if int((truth[image] == label).sum()) > MAX_VIEWS
    ]
    if not pairs:
        return None
    n = min(MAX_SAMPLES // len(pairs), MAX_VIEWS)
    flat = embedding.flatten(2).transpose(1, 2)  # (B, HW, D)
    views = []
    for image, label in pairs:
        members = truth[image] == label
        if predicted is None:
            chosen = _some(members, n)
        else:
            wrong = (predicted[image].flatten() > 0.5) != truth[image]
            hard, easy = members & wrong, members & ~wrong
            n_hard, n_easy = int(hard.sum()), int(easy.sum())
            # half each; a group that is too small gives all it has and the other fills up
            take = min(n_hard, max(n // 2, n - n_easy))
            chosen = torch.cat([_some(hard, take), _some(easy, n - take)])
        views.append(flat[image, chosen])
    classes = torch.tensor([int(label) for _, label in pairs], device=embedding.device)
    return torch.stack(views), classes


def pixel_contrast(views: Tensor, classes: Tensor) -> Tensor:
    """Supervised InfoNCE in which each positive is held against all negatives and itself alone.

    Args:
        views: Unit vectors (K, V, D).
        classes: Class of each of the K groups.

    Source: "Exploring Cross-Image Pixel Contrast" (ContrastiveSeg) as used by CTNet.
    """
    k, v, _ = views.shape
    z = views.flatten(0, 1)
    label = classes.repeat_interleave(v)
    s = z @ z.T / TEMPERATURE
    s = s - s.amax(1, keepdim=True).detach()
    same = label[:, None] == label[None, :]
    negatives = (s.exp() * ~same).sum(1, keepdim=True)
    log_p = s - (s.exp() + negatives).log()
    positive = same & ~torch.eye(k * v, dtype=torch.bool, device=z.device)
    mean = (log_p * positive).sum(1) / positive.sum(1).clamp_min(1)
    return -(TEMPERATURE / BASE_TEMPERATURE) * mean.mean()


def _some(members: Tensor, n: int) -> Tensor:
    """Indices of `n` random members, without replacement."""
    found = members.nonzero()[:, 0]
    order = torch.randperm(len(found))[:n]
    return found[order.to(found.device)]
