"""U-Net: the slim one of the survey code behind Table 3, and the full-size one.

Ronneberger et al. 2015 (arXiv 1505.04597). The slim network and its recipe are those of "Medical
Image Segmentation Review: The Success of U-Net" (Azad et al., TPAMI 2024; Awesome-U-Net), which
the authors of Siamese-Diffusion name as theirs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from siamese_diffusion.core.errors import ConfigError
from siamese_diffusion.segmentation.base import Normalisation, Outputs, Segmenter
from siamese_diffusion.segmentation.losses import cross_entropy, pooled_dice_loss
from siamese_diffusion.segmentation.settings import (
    SegmentSettings,
    UNetRunSettings,
    UNetSettings,
)

WIDTHS = {"slim": 32, "full": 64}  # channels of the first level
LEVELS = {"slim": 4, "full": 5}


class UNet(Segmenter):
    """The network; two logits (background, foreground) at input size."""

    Settings: ClassVar[type[SegmentSettings]] = UNetRunSettings
    multiple: ClassVar[int] = 8
    normalisation: ClassVar[Normalisation] = "minmax"
    has_encoder: ClassVar[bool] = False

    def __init__(self, settings: UNetSettings | None = None) -> None:
        super().__init__()
        settings = settings or UNetSettings()
        full = settings.variant == "full"
        first = settings.width or WIDTHS[settings.variant]
        widths = [first * 2**level for level in range(LEVELS[settings.variant])]
        # An instance may need more than the class: the full network halves four times.
        self.multiple = 2 ** (len(widths) - 1)  # type: ignore[misc]
        norm = full or settings.batch_norm
        block = _full_block if full else (lambda i, o: _slim_block(i, o, norm=norm))
        self.pool = nn.MaxPool2d(2)
        self.down = nn.ModuleList(block(i, o) for i, o in zip((3, *widths), widths, strict=False))
        steps = list(zip(widths[::-1], widths[-2::-1], strict=False))  # (deep, skip)
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(deep, skip, 2, 2)
            if full
            else nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
            for deep, skip in steps
        )
        self.join = nn.ModuleList(
            block((skip if full else deep) + skip, skip) for deep, skip in steps
        )
        self.out = nn.Conv2d(widths[0], settings.classes, 1)

    def forward(self, images: Tensor) -> Outputs:
        self.check_size(images)
        x, skips = images, []
        for level, block in enumerate(self.down):
            x = block(self.pool(x) if level else x)
            skips.append(x)
        for up, join, skip in zip(self.up, self.join, skips[-2::-1], strict=True):
            x = join(torch.cat([up(x), skip], 1))
        return Outputs(self.out(x))

    def loss(self, outputs: Outputs, masks: Tensor) -> dict[str, Tensor]:
        z = outputs.logits
        if z.shape[1] == 1:  # one channel is the foreground's against a constant 0
            z = torch.cat([torch.zeros_like(z), z], 1)
        return {
            "loss/cross_entropy": 0.5 * cross_entropy(z, masks),
            "loss/dice": 0.5 * pooled_dice_loss(z, masks),
        }

    @classmethod
    def published_names(cls, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        raise ConfigError(
            "no checkpoint of this U-Net has been published", hint="train it: siamdiff segment fit"
        )


def _slim_block(c_in: int, c_out: int, *, norm: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    for first in (c_in, c_out):
        layers.append(nn.Conv2d(first, c_out, 3, padding=1))
        layers += [nn.BatchNorm2d(c_out)] if norm else []
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


def _full_block(c_in: int, c_out: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for first in (c_in, c_out):
        layers += [
            nn.Conv2d(first, c_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(c_out),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)
