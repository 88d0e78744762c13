"""Polyp-PVT: PVTv2-B2 and a decoder of fused, identified and aggregated features.

"Polyp-PVT: Polyp Segmentation with Pyramid Vision Transformers" (Dong et al., CAAI AIR 2023,
arXiv 2108.06932); where its release (DengPingFan/Polyp-PVT) surprises, docs/deviations.md says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from siamese_diffusion.models.nets.pyramid import PvtV2B2, pvt_names
from siamese_diffusion.segmentation.base import Outputs, Segmenter
from siamese_diffusion.segmentation.checkpoints import below, renamed, with_encoder
from siamese_diffusion.segmentation.losses import structure_loss
from siamese_diffusion.segmentation.settings import (
    PolypPVTRunSettings,
    PolypPVTSettings,
    SegmentSettings,
)

WIDTH = 32  # channels of a reduced map
STATES = 16  # channels of the graph's nodes, and their number (a 4 x 4 grid)
GRID = 6  # side of the pooled map; its outer ring is dropped


class ConvNorm(nn.Module):
    """Convolution of "same" size without bias, and BatchNorm.

    The papers draw a ReLU behind it, which the released code makes but never calls.
    """

    def __init__(self, c_in: int, c_out: int, kernel: int, *, relu: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(c_out)
        self._relu = relu

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.bn(self.conv(x))
        return y.relu() if self._relu else y


class ChannelAttention(nn.Module):
    """Which channels matter: one small network on the means and the maxima."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // 16, 1, bias=False)
        self.fc2 = nn.Conv2d(channels // 16, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        pooled = (F.adaptive_avg_pool2d(x, 1), F.adaptive_max_pool2d(x, 1))
        mean, peak = (self.fc2(self.fc1(part).relu()) for part in pooled)
        gate: Tensor = (mean + peak).sigmoid()
        return x * gate


class SpatialAttention(nn.Module):
    """Which places matter, from mean and maximum over channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        summary = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        gate: Tensor = self.conv1(summary).sigmoid()
        return x * gate


class CascadedFusion(nn.Module):
    """Three reduced maps a, b, c (strides 32, 16, 8) multiplied and joined from the top down."""

    def __init__(self, *, relu: bool) -> None:
        super().__init__()
        c = WIDTH
        self.up1 = ConvNorm(c, c, 3, relu=relu)
        self.up2 = ConvNorm(c, c, 3, relu=relu)
        self.up3 = ConvNorm(c, c, 3, relu=relu)
        self.up4 = ConvNorm(c, c, 3, relu=relu)
        self.up5 = ConvNorm(2 * c, 2 * c, 3, relu=relu)
        self.join2 = ConvNorm(2 * c, 2 * c, 3, relu=relu)
        self.join3 = ConvNorm(3 * c, 3 * c, 3, relu=relu)
        self.out = ConvNorm(3 * c, c, 3, relu=relu)

    def forward(self, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        b1 = self.up1(_twice(a)) * b
        c1 = self.up2(_twice(_twice(a))) * self.up3(_twice(b)) * c
        b2 = self.join2(torch.cat([b1, self.up4(_twice(a))], 1))
        c2 = self.join3(torch.cat([c1, self.up5(_twice(b2))], 1))
        t1: Tensor = self.out(c2)
        return t1


class GraphConvolution(nn.Module):
    """Mix nodes, subtract them, mix their states; (B, states, nodes) to the same."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(STATES, STATES, 1)
        self.conv2 = nn.Conv1d(STATES, STATES, 1, bias=False)

    def forward(self, nodes: Tensor) -> Tensor:
        mixed = self.conv1(nodes.transpose(1, 2)).transpose(1, 2) - nodes
        out: Tensor = self.conv2(mixed).relu()
        return out


class SimilarityAggregation(nn.Module):
    """Add to x what a graph of its places, weighted by the boundary map e, says."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_state = nn.Conv2d(WIDTH, STATES, 1)
        self.conv_proj = nn.Conv2d(WIDTH, STATES, 1)
        self.gcn = GraphConvolution()
        self.conv_extend = nn.Conv2d(STATES, WIDTH, 1, bias=False)

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        gate = F.interpolate(e, x.shape[2:]).softmax(1)[:, 1:2]
        state = self.conv_state(x).flatten(2)
        projected = self.conv_proj(x)
        anchors = F.adaptive_avg_pool2d(projected * gate, GRID)[:, :, 1:-1, 1:-1].flatten(2)
        share = (anchors.transpose(1, 2) @ projected.flatten(2)).softmax(1)  # (B, nodes, HW)
        nodes = self.gcn(state @ share.transpose(1, 2))
        back = (nodes @ share).unflatten(2, x.shape[2:])
        out: Tensor = x + self.conv_extend(back)
        return out


class PolypPVT(Segmenter):
    """The network. Two logits at input size are trained; their sum is the prediction."""

    Settings: ClassVar[type[SegmentSettings]] = PolypPVTRunSettings
    multiple: ClassVar[int] = 32

    def __init__(self, settings: PolypPVTSettings | None = None) -> None:
        super().__init__()
        settings = settings or PolypPVTSettings()
        self._weighted_bce = settings.weighted_bce
        relu = settings.relu
        self.encoder: nn.Module = PvtV2B2()
        self.reduce1 = ConvNorm(64, WIDTH, 1, relu=relu)
        self.reduce2 = ConvNorm(128, WIDTH, 1, relu=relu)
        self.reduce3 = ConvNorm(320, WIDTH, 1, relu=relu)
        self.reduce4 = ConvNorm(512, WIDTH, 1, relu=relu)
        self.channel = ChannelAttention(64)
        self.spatial = SpatialAttention()
        self.fusion = CascadedFusion(relu=relu)
        self.aggregation = SimilarityAggregation()
        self.out_fusion = nn.Conv2d(WIDTH, 1, 1)
        self.out_aggregation = nn.Conv2d(WIDTH, 1, 1)

    def forward(self, images: Tensor) -> Outputs:
        self.check_size(images)
        x1, x2, x3, x4 = self.encoder(images)
        t1 = self.fusion(self.reduce4(x4), self.reduce3(x3), self.reduce2(x2))
        identified = self.reduce1(self.spatial(self.channel(x1)))
        t2 = F.interpolate(identified, scale_factor=0.5, mode="bilinear", align_corners=True)
        p1 = self.resize(self.out_fusion(t1), images.shape[2:])
        p2 = self.resize(self.out_aggregation(self.aggregation(t1, t2)), images.shape[2:])
        return Outputs(p1 + p2, {"fusion": p1, "aggregation": p2})

    def loss(self, outputs: Outputs, masks: Tensor) -> dict[str, Tensor]:
        return {
            f"loss/{name}": structure_loss(z, masks, weighted_bce=self._weighted_bce)
            for name, z in outputs.auxiliary.items()
        }

    @classmethod
    def published_names(cls, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        names = with_encoder(state, "backbone.", below_body(pvt_names(below(state, "backbone."))))
        return renamed(names, _PUBLISHED)

    @classmethod
    def encoder_names(cls, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return below_body(pvt_names(state))


_PUBLISHED = {
    "Translayer2_0.": "reduce1.",
    "Translayer2_1.": "reduce2.",
    "Translayer3_1.": "reduce3.",
    "Translayer4_1.": "reduce4.",
    "ca.": "channel.",
    "sa.": "spatial.",
    "CFM.conv_upsample": "fusion.up",
    "CFM.conv_concat": "fusion.join",
    "CFM.conv4.": "fusion.out.",
    "SAM.": "aggregation.",
    "out_CFM.": "out_fusion.",
    "out_SAM.": "out_aggregation.",
}


def below_body(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names of an encoder from `models/nets/pyramid.py`."""
    return {f"body.{name}": tensor for name, tensor in state.items()}


def _twice(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
