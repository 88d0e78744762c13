"""The structure loss by which ArSDM holds its images against their masks (that of PraNet)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def structure_loss(logits: Tensor, mask: Tensor, *, window: int = 31) -> Tensor:
    """Cross-entropy and intersection over union, both weighted towards outlines, (B,).

    Pixels weigh w = 1 + 5 |mean of the mask around them - mask|. The released code averages the
    cross-entropy before weighting it (an argument of old torch), so that there the weights cancel;
    here they count.

    Args:
        logits: Of the segmenter, (B, 1, H, W); gradient flows.
        mask: What the image should show, same shape, in {0, 1}.
        window: Side of the neighbourhood in pixels, odd; 31 at the release's 352.
    """
    m = mask.float()
    around = F.avg_pool2d(m, window, stride=1, padding=window // 2)
    w = 1 + 5 * (around - m).abs()
    entropy = F.binary_cross_entropy_with_logits(logits.float(), m, reduction="none")
    entropy = (w * entropy).sum((1, 2, 3)) / w.sum((1, 2, 3))
    p = torch.sigmoid(logits.float())
    inter = (p * m * w).sum((1, 2, 3))
    union = ((p + m) * w).sum((1, 2, 3))
    return entropy + 1 - (inter + 1) / (union - inter + 1)
