"""Res2Net-50 v1b, 26w x 4s: the encoder of SANet.

Source: "Res2Net: A New Multi-scale Backbone Architecture" (Gao et al., TPAMI 2021; code released
by its authors without a licence text, so nothing of it is here). Written from a description of
layers and tensor names; "v1b" is the ResNet-D stem and shortcut on top of Res2Net blocks. The
names are those of the published ImageNet checkpoint, which is the same as timm's `res2net50d`.
Changes: no classifier; every layer's padding and size is spelled out.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

SCALE = 4
BASE_WIDTH = 26
EXPANSION = 4
DEPTHS = (3, 4, 6, 3)
WIDTHS = (256, 512, 1024, 2048)  # channels of the four stages


class Bottle2neck(nn.Module):
    """Split into four groups, filter them one after the other, join again.

    Args:
        c_in: Input channels.
        planes: Base width of the stage; the output has four times as many channels.
        stride: Of the 3 x 3 convolutions.
        first: First block of a stage: groups are filtered independently, and the shortcut has an
            average pool and a 1 x 1 convolution.
    """

    def __init__(self, c_in: int, planes: int, *, stride: int = 1, first: bool = False) -> None:
        super().__init__()
        width = math.floor(planes * BASE_WIDTH / 64)
        self.first = first
        self.conv1 = nn.Conv2d(c_in, SCALE * width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(SCALE * width)
        self.convs = nn.ModuleList(
            nn.Conv2d(width, width, 3, stride, 1, bias=False) for _ in range(SCALE - 1)
        )
        self.bns = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(SCALE - 1))
        self.conv3 = nn.Conv2d(SCALE * width, EXPANSION * planes, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(EXPANSION * planes)
        self.relu = nn.ReLU(inplace=True)
        self.pool: nn.Module = nn.AvgPool2d(3, stride, 1) if first else nn.Identity()
        self.downsample: nn.Module = nn.Identity()
        if first:
            self.downsample = nn.Sequential(
                nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False),
                nn.Conv2d(c_in, EXPANSION * planes, 1, bias=False),
                nn.BatchNorm2d(EXPANSION * planes),
            )

    def forward(self, x: Tensor) -> Tensor:
        *groups, last = self.relu(self.bn1(self.conv1(x))).chunk(SCALE, 1)
        joined: list[Tensor] = []
        for group, conv, norm in zip(groups, self.convs, self.bns, strict=True):
            known = group if self.first or not joined else group + joined[-1]
            joined.append(self.relu(norm(conv(known))))
        joined.append(self.pool(last))
        y: Tensor = self.bn3(self.conv3(torch.cat(joined, 1)))
        out: Tensor = self.relu(y + self.downsample(x))
        return out


class Res2Net50(nn.Module):
    """Images (B, 3, H, W) to maps of 256, 512, 1024 and 2048 channels at strides 4 to 32."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(
            nn.Conv2d(3, 32, 3, 2, 1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(inplace=True),
            nn.Conv2d(32, 32, 3, 1, 1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(inplace=True),
            nn.Conv2d(32, 64, 3, 1, 1, bias=False),
        )
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        c_in = 64
        for number, (depth, c_out) in enumerate(zip(DEPTHS, WIDTHS, strict=True), start=1):
            planes, stride = c_out // EXPANSION, 1 if number == 1 else 2
            blocks = [Bottle2neck(c_in, planes, stride=stride, first=True)]
            blocks += [Bottle2neck(c_out, planes) for _ in range(depth - 1)]
            self.add_module(f"layer{number}", nn.Sequential(*blocks))
            c_in = c_out
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, image: Tensor) -> list[Tensor]:
        x: Tensor = self.maxpool(self.relu(self.bn1(self.conv1(image))))
        maps = []
        for number in range(1, len(DEPTHS) + 1):
            x = self.get_submodule(f"layer{number}")(x)
            maps.append(x)
        return maps
