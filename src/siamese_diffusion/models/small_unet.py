"""A U-Net of about 0.2 M parameters: enough to find a lesion, or to tell whether one is shown."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def _block(c_in: int, c_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(c_in, c_out, 3, padding=1, bias=False),
        nn.GroupNorm(4, c_out),
        nn.SiLU(),
        nn.Conv2d(c_out, c_out, 3, padding=1, bias=False),
        nn.GroupNorm(4, c_out),
        nn.SiLU(),
    )


class SmallUNet(nn.Module):
    """Images (B, 3, H, W) in [-1, 1] to logits (B, 1, H, W); H and W multiples of 8."""

    def __init__(self, widths: tuple[int, int, int, int] = (12, 24, 48, 64)) -> None:
        super().__init__()
        self.down = nn.ModuleList(
            _block(a, b) for a, b in zip((3, *widths[:-1]), widths, strict=True)
        )
        pairs = list(zip(widths[::-1][:-1], widths[::-1][1:], strict=True))
        self.up = nn.ModuleList(_block(deep + skip, skip) for deep, skip in pairs)
        self.head = nn.Conv2d(widths[0], 1, 1)

    def forward(self, image: Tensor) -> Tensor:
        x, skips = image, []
        for level, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if level else x)
            skips.append(x)
        for block, skip in zip(self.up, skips[-2::-1], strict=True):
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = block(torch.cat([x, skip], 1))
        logits = self.head(x)
        assert isinstance(logits, Tensor)
        return logits


def segmentation_loss(logits: Tensor, mask: Tensor) -> Tensor:
    """Binary cross-entropy plus soft Dice loss; mask (B, 1, H, W) in {0, 1}."""
    p = logits.sigmoid()
    overlap = 2 * (p * mask).sum((1, 2, 3)) + 1
    dice = overlap / (p.sum((1, 2, 3)) + mask.sum((1, 2, 3)) + 1)
    return F.binary_cross_entropy_with_logits(logits, mask) + 1 - dice.mean()
