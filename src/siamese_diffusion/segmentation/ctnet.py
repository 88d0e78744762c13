"""CTNet: MiT-B3, one self-interaction block for three levels, and a pixel contrast.

"CTNet: Contrastive Transformer Network for Polyp Segmentation" (Xiao et al., IEEE Transactions on
Cybernetics 2024); where its release (Fhujinwu/CTNet) surprises, docs/deviations.md says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from siamese_diffusion.models.nets.pyramid import MIT_VARIANTS, Mit, mit_names
from siamese_diffusion.segmentation.base import Outputs, Segmenter
from siamese_diffusion.segmentation.checkpoints import below, renamed, with_encoder
from siamese_diffusion.segmentation.losses import draw_views, pixel_contrast, structure_loss
from siamese_diffusion.segmentation.polyp_pvt import ConvNorm, below_body
from siamese_diffusion.segmentation.settings import (
    CTNetRunSettings,
    CTNetSettings,
    SegmentSettings,
)

WIDTH = 32  # channels of a reduced map, and of an embedding
VARIANT = "b3"


class SelfInteraction(nn.Module):
    """Exchange between a map and itself at half size; SMIM of the paper.

    Letters: h high, l low resolution; `h2l1` leads from high to low in layer 1.
    """

    def __init__(self) -> None:
        super().__init__()
        for name in ("h2h0", "h2l0", "h2h1", "h2l1", "l2h1", "l2l1", "h2h2", "l2h2"):
            self.add_module(name, nn.Conv2d(WIDTH, WIDTH, 3, padding=1))
        for name in ("bnh0", "bnl0", "bnh1", "bnl1", "bnh2"):
            self.add_module(name, nn.BatchNorm2d(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        part = self.get_submodule
        size = x.shape[2:]

        def large(y: Tensor) -> Tensor:
            return F.interpolate(y, size=size, mode="bilinear", align_corners=False)

        def small(y: Tensor) -> Tensor:
            return F.avg_pool2d(y, 2)

        h0 = part("bnh0")(part("h2h0")(x)).relu()
        l0 = part("bnl0")(part("h2l0")(small(x))).relu()
        h1 = part("bnh1")(part("h2h1")(h0) + part("l2h1")(large(l0))).relu()
        l1 = part("bnl1")(part("l2l1")(l0) + part("h2l1")(small(h0))).relu()
        h2: Tensor = part("bnh2")(part("h2h2")(h1) + part("l2h2")(large(l1))).relu()
        return h2 + x


class Upsampler(nn.Module):
    """Twice the sides: transposed convolution, then a 3 x 3 one with BatchNorm."""

    def __init__(self, *, relu: bool) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(WIDTH, WIDTH, 4, 2, 1)
        self.smooth = ConvNorm(WIDTH, WIDTH, 3, relu=relu)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.smooth(self.up(x))
        return y


class ContrastHead(nn.Module):
    """Deepest map (B, 32, h, w) to unit embeddings of pixels, (B, 32, 8h, 8w)."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(3):
            layers += [
                nn.ConvTranspose2d(WIDTH, WIDTH, 4, 2, 1),
                nn.BatchNorm2d(WIDTH),
                nn.ReLU(inplace=True),
            ]
        self.project = nn.Sequential(*layers, nn.Conv2d(WIDTH, WIDTH, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(self.project(x), dim=1)


class CTNet(Segmenter):
    """The network; its logit comes at input size, its embeddings (training only) at a quarter."""

    Settings: ClassVar[type[SegmentSettings]] = CTNetRunSettings
    multiple: ClassVar[int] = 32
    smallest: ClassVar[int] = 64  # the deepest map is halved once more

    def __init__(self, settings: CTNetSettings | None = None) -> None:
        super().__init__()
        self._settings = settings or CTNetSettings()
        relu = self._settings.relu
        self.encoder: nn.Module = Mit(VARIANT)
        for level, width in enumerate(MIT_VARIANTS[VARIANT].widths, start=1):
            self.add_module(f"reduce{level}", ConvNorm(width, WIDTH, 1, relu=relu))
        self.contrast = ContrastHead()
        self.interaction = SelfInteraction()  # one for three levels
        self.collect = Upsampler(relu=relu)  # one for three steps; CIM of the paper
        self.upsample = Upsampler(relu=relu)
        self.smooth = ConvNorm(WIDTH, WIDTH, 3, relu=relu)
        self.predict = nn.Conv2d(WIDTH, 1, 1)

    def forward(self, images: Tensor) -> Outputs:
        self.check_size(images)
        x1, x2, x3, x4 = self._reduced(images)
        auxiliary = {"embedding": self.contrast(x4)} if self.training else {}
        a, b, c = (self.interaction(x) for x in (x4, x3, x2))
        b0 = self.collect(a) * b + b
        c0 = self.collect(b) * c + c
        f = self.collect(b0) * c0 + c0
        logit = self.predict(self.smooth(x1 + self.upsample(f)))
        return Outputs(self.resize(logit, images.shape[2:]), auxiliary)

    def embedding(self, images: Tensor) -> Tensor:
        """Unit embeddings (B, 32, H/4, W/4), in any mode."""
        out: Tensor = self.contrast(self._reduced(images)[3])
        return out

    def loss(self, outputs: Outputs, masks: Tensor) -> dict[str, Tensor]:
        settings = self._settings
        terms = {
            "loss/structure": structure_loss(
                outputs.logits, masks, weighted_bce=settings.weighted_bce
            )
        }
        embedding = outputs.auxiliary.get("embedding")
        if embedding is None:  # eval mode has no contrast
            return terms
        e = F.interpolate(embedding, size=masks.shape[2:], mode="bilinear", align_corners=True)
        predicted = (outputs.logits > 0).float() if settings.mine_hard_pixels else None
        views = draw_views(e, masks, predicted)
        contrast = embedding.sum() * 0 if views is None else pixel_contrast(*views)
        return terms | {"loss/contrast": settings.contrast_weight * contrast}

    def _reduced(self, images: Tensor) -> list[Tensor]:
        maps = self.encoder(images)
        return [self.get_submodule(f"reduce{n}")(m) for n, m in enumerate(maps, start=1)]

    @classmethod
    def published_names(cls, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        names = with_encoder(state, "backbone.", below_body(mit_names(below(state, "backbone."))))
        return renamed(names, _PUBLISHED)

    @classmethod
    def encoder_names(cls, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return below_body(mit_names(state))


_PUBLISHED = {
    **{f"Translayer{n}.": f"reduce{n}." for n in (1, 2, 3, 4)},
    "contrasthead.pro.": "contrast.project.",
    **{
        f"Smim.{old}_{n}.": f"interaction.{old}{n}."
        for old in ("h2h", "h2l", "l2h", "l2l", "bnh", "bnl")
        for n in (0, 1, 2)
    },
    "cim.uper.0.": "collect.up.",
    "cim.uper.1.": "collect.smooth.",
    "uper.0.": "upsample.up.",
    "uper.1.": "upsample.smooth.",
    "prediction.0.": "smooth.",
    "prediction.1.": "predict.",
}
