"""Dense Hint Input (DHI), paper Sec. 3.4 and Fig. 2(c). Depends on torch alone.

One module with one set of weights encodes masks (three equal channels) and images, both in [0, 1],
to the resolution and width of the control branch's first feature map.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ResidualBlock(nn.Module):
    """RB(c): SiLU(x + conv(SiLU(conv(x)))), no normalisation, identity shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(x + self.conv2(F.silu(self.conv1(x))))


class PatchMerging(nn.Module):
    """PM(c -> d): 2x2 neighbours on channels, LayerNorm(4c), Linear(4c -> d) with bias.

    The neighbours are taken column by column, (0, 0), (1, 0), (0, 1), (1, 1) as (row, column),
    which is the order of the authors' release (and of Swin).
    """

    def __init__(self, width: int, out_width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * width)
        self.reduction = nn.Linear(4 * width, out_width)

    def forward(self, x: Tensor) -> Tensor:
        # The layout that came in goes on: channels innermost needs no copy here.
        innermost = x.is_contiguous(memory_format=torch.channels_last)
        x = x.permute(0, 2, 3, 1)  # (B, H, W, c)
        corners = (x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2])
        merged = self.reduction(self.norm(torch.cat(corners, dim=-1)))  # (B, H/2, W/2, d)
        out: Tensor = merged.permute(0, 3, 1, 2)
        return out if innermost else out.contiguous()


class DenseHintInput(nn.Module):
    """The DHI: five residual stages, three patch mergings, a zero-initialised output convolution.

    Args:
        out_width: Channels of the control branch's first convolution (320 for SD 1.5).
        widths: Five stage widths; the paper's are 16, 32, 64, 128, 256.
        channels: Of the input; 3 in the paper.

    Source: Siamese-Diffusion (CVPR 2025), Sec. 3.4; layer order of the authors' release.
    """

    def __init__(
        self,
        out_width: int,
        widths: tuple[int, ...] = (16, 32, 64, 128, 256),
        *,
        channels: int = 3,
    ) -> None:
        super().__init__()
        w1, w2, w3, w4, w5 = widths
        self.conv1 = nn.Conv2d(channels, w1, 3, padding=1)
        self.block1 = ResidualBlock(w1)
        self.conv2 = nn.Conv2d(w1, w2, 3, padding=1)
        self.block2 = ResidualBlock(w2)
        self.merge1 = PatchMerging(w2, w3)
        self.conv3 = nn.Conv2d(w3, w3, 3, padding=1)
        self.block3 = ResidualBlock(w3)
        self.merge2 = PatchMerging(w3, w4)
        self.conv4 = nn.Conv2d(w4, w4, 3, padding=1)
        self.block4 = ResidualBlock(w4)
        self.merge3 = PatchMerging(w4, w5)
        self.conv5 = nn.Conv2d(w5, w5, 3, padding=1)
        self.block5 = ResidualBlock(w5)
        self.out = nn.Conv2d(w5, out_width, 3, padding=1)
        for parameter in self.out.parameters():
            nn.init.zeros_(parameter)

    def features(self, hint: Tensor) -> Tensor:
        """Features before the zero convolution, (B, w5, H/8, W/8).

        Args:
            hint: Mask or image, (B, 3, H, W) in [0, 1]; H and W multiples of 8.

        Raises:
            ValueError: If H or W is not a multiple of 8.
        """
        height, width = hint.shape[-2:]
        if height % 8 or width % 8:
            padded = (-(-height // 8) * 8, -(-width // 8) * 8)
            raise ValueError(
                f"hint is {height}x{width}; both must be multiples of 8, "
                f"e.g. {padded[0]}x{padded[1]}"
            )
        x = self.block1(self.conv1(hint))
        x = self.block2(self.conv2(x))
        x = self.block3(self.conv3(self.merge1(x)))
        x = self.block4(self.conv4(self.merge2(x)))
        out: Tensor = self.block5(self.conv5(self.merge3(x)))
        return out

    def forward(self, hint: Tensor) -> Tensor:
        """Hint (B, 3, H, W) in [0, 1] to (B, out_width, H/8, W/8)."""
        out: Tensor = self.out(self.features(hint))
        return out
