"""SegFormer B0 to B5: a MiT encoder and an all-MLP head.

"SegFormer: Simple and Efficient Design for Semantic Segmentation with Transformers" (Xie et al.,
NeurIPS 2021, arXiv 2105.15203), by transformers' class. The paper of Siamese-Diffusion does not say
which variant it used.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn
from transformers import SegformerForSemanticSegmentation

from siamese_diffusion.models.nets.pyramid import mit_config, mit_names, set_epsilons
from siamese_diffusion.segmentation.base import Outputs, Segmenter
from siamese_diffusion.segmentation.checkpoints import below, renamed
from siamese_diffusion.segmentation.losses import cross_entropy
from siamese_diffusion.segmentation.settings import (
    SegFormerRunSettings,
    SegFormerSettings,
    SegmentSettings,
)

HEAD_RATE = 10.0  # times the encoder's learning rate


class SegFormer(Segmenter):
    """The network; its logits come at a quarter of the input's sides, which may be any."""

    Settings: ClassVar[type[SegmentSettings]] = SegFormerRunSettings

    def __init__(self, settings: SegFormerSettings | None = None) -> None:
        super().__init__()
        settings = settings or SegFormerSettings()
        network = SegformerForSemanticSegmentation(
            mit_config(settings.variant, classes=settings.classes)
        )
        self.encoder: nn.Module = network.segformer
        self.head: nn.Module = network.decode_head
        set_epsilons(self.encoder)

    def forward(self, images: Tensor) -> Outputs:
        maps = self.encoder(images, output_hidden_states=True).hidden_states
        return Outputs(self.head(maps))

    def loss(self, outputs: Outputs, masks: Tensor) -> dict[str, Tensor]:
        z = self.resize(outputs.logits, masks.shape[2:])
        if z.shape[1] == 1:
            return {"loss/bce": nn.functional.binary_cross_entropy_with_logits(z, masks)}
        return {"loss/cross_entropy": cross_entropy(z, masks)}

    def scaled_groups(self) -> list[tuple[list[nn.Parameter], float]]:
        return [
            (list(self.encoder.parameters()), 1.0),
            (list(self.head.parameters()), HEAD_RATE),
        ]

    @classmethod
    def published_names(cls, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        encoder = mit_names(below(state, "backbone."))
        rest = {
            name: tensor
            for name, tensor in state.items()
            # the release has an unused classifier of its base class
            if not name.startswith(("backbone.", "decode_head.conv_seg."))
        }
        return {**renamed(rest, _HEAD), **{f"encoder.{n}": t for n, t in encoder.items()}}

    @classmethod
    def encoder_names(cls, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return mit_names(state)


_HEAD = {
    **{f"decode_head.linear_c{n}.": f"head.linear_projections.{n - 1}." for n in (1, 2, 3, 4)},
    "decode_head.linear_fuse.conv.": "head.linear_fuse.",
    "decode_head.linear_fuse.bn.": "head.batch_norm.",
    "decode_head.linear_pred.": "head.classifier.",
}
