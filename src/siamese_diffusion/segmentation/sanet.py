"""SANet: Res2Net-50 v1b, and deep features that gate shallow ones.

"Shallow Attention Network for Polyp Segmentation" (Wei et al., MICCAI 2021, arXiv 2108.00882);
where its release (weijun88/SANet) surprises, docs/deviations.md says so. Colour exchange is in
`colour.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from siamese_diffusion.models.nets.res2net import WIDTHS, Res2Net50
from siamese_diffusion.segmentation.base import Outputs, Segmenter
from siamese_diffusion.segmentation.checkpoints import renamed
from siamese_diffusion.segmentation.losses import soft_dice_loss
from siamese_diffusion.segmentation.settings import (
    SANetRunSettings,
    SANetSettings,
    SegmentSettings,
)

WIDTH = 64  # channels of a reduced map
ENCODER_RATE = 0.1  # of the decoder's learning rate


class SANet(Segmenter):
    """The network; its logit comes at an eighth of the input's sides."""

    Settings: ClassVar[type[SegmentSettings]] = SANetRunSettings
    multiple: ClassVar[int] = 32
    align_corners: ClassVar[bool] = True

    def __init__(self, settings: SANetSettings | None = None) -> None:
        super().__init__()
        self._probability_correction = (settings or SANetSettings()).probability_correction
        self.encoder: nn.Module = Res2Net50()
        self.reduce5 = _reduce(WIDTHS[3])
        self.reduce4 = _reduce(WIDTHS[2])
        self.reduce3 = _reduce(WIDTHS[1])
        self.predict = nn.Conv2d(3 * WIDTH, 1, 1)
        for part in (self.reduce5, self.reduce4, self.reduce3, self.predict):
            for module in part.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
                    assert module.bias is not None
                    nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Outputs:
        self.check_size(images)
        _, out3, out4, out5 = self.encoder(images)
        f3 = self.reduce3(out3)
        f4 = self.resize(self.reduce4(out4), f3.shape[2:])
        f5 = self.resize(self.reduce5(out5), f3.shape[2:])
        gated = torch.cat([f5, f4 * f5, f3 * f4 * f5], 1)
        return Outputs(self.predict(gated))

    def loss(self, outputs: Outputs, masks: Tensor) -> dict[str, Tensor]:
        z = self.resize(outputs.logits, masks.shape[2:])
        return {
            "loss/bce": F.binary_cross_entropy_with_logits(z, masks),
            "loss/dice": soft_dice_loss(z, masks),
        }

    def probability(self, logit: Tensor) -> Tensor:
        """The sigmoid, of corrected logits if that is switched on; not normalised."""
        z = correct_probability(logit) if self._probability_correction else logit
        return z.sigmoid()

    def scaled_groups(self) -> list[tuple[list[nn.Parameter], float]]:
        encoder = list(self.encoder.parameters())
        inside = {id(p) for p in encoder}
        return [
            (encoder, ENCODER_RATE),
            ([p for p in self.parameters() if id(p) not in inside], 1.0),
        ]

    @classmethod
    def published_names(cls, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        names = {"bkbone.": "encoder."}
        return renamed(state, names | {f"linear{n}.": f"reduce{n}." for n in (3, 4, 5)})

    @classmethod
    def encoder_names(cls, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}


def correct_probability(z: Tensor) -> Tensor:
    """Divide positive logits by their share of the image and negative ones by theirs.

    Signs stay, so decisions at one half do; the rarer side is made more certain. Logits
    (B, 1, H, W).

    Source: SANet, probability correction strategy.
    """
    positive, negative = z > 0, z < 0
    share = torch.where(
        positive,
        positive.float().mean((1, 2, 3), keepdim=True),
        negative.float().mean((1, 2, 3), keepdim=True),
    )
    return torch.where(positive | negative, z / share, z)


def _reduce(c_in: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(c_in, WIDTH, 1), nn.BatchNorm2d(WIDTH), nn.ReLU(inplace=True))
