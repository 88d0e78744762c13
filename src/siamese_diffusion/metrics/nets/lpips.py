"""Trunks of LPIPS (AlexNet, SqueezeNet 1.1, VGG-16) and the distance between their activations.

Layers have torchvision's indices, so that its checkpoints load by name. Knows nothing of files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from siamese_diffusion.core.errors import WeightsError

Trunk = Literal["alex", "squeeze", "vgg"]
SMALLEST_SIDE: Final = 32  # pixels; smaller images vanish in AlexNet's pools
_SHIFT: Final = (-0.030, -0.088, -0.188)
_SCALE: Final = (0.458, 0.448, 0.450)
_UNIT_EPS: Final = 1e-10
# Index of the layer after whose ReLU activations are taken, and their channels.
_TAPS: Final[Mapping[Trunk, tuple[int, ...]]] = {
    "alex": (1, 4, 7, 9, 11),
    "squeeze": (1, 4, 7, 9, 10, 11, 12),
    "vgg": (3, 8, 15, 22, 29),
}
CHANNELS: Final[Mapping[Trunk, tuple[int, ...]]] = {
    "alex": (64, 192, 384, 256, 256),
    "squeeze": (64, 128, 256, 384, 384, 512, 512),
    "vgg": (64, 128, 256, 512, 512),
}


class Fire(nn.Module):
    """SqueezeNet's block: narrow 1x1, then 1x1 and 3x3 side by side, ReLU after each."""

    def __init__(self, c_in: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(c_in, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.squeeze(x))
        return torch.cat([F.relu(self.expand1x1(x)), F.relu(self.expand3x3(x))], 1)


class Lpips(nn.Module):
    """LPIPS 0.1: `activations` once an image, `distance` for each pair of them.

    Args:
        trunk: Which network; values of different trunks cannot be compared.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, trunk: Trunk) -> None:
        super().__init__()
        self.trunk = trunk
        build = {"alex": _alexnet, "squeeze": _squeezenet, "vgg": _vgg16}[trunk]
        self.features = build()
        self.lin = nn.ParameterList(torch.zeros(1, c, 1, 1) for c in CHANNELS[trunk])
        self.register_buffer("shift", torch.tensor(_SHIFT).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(_SCALE).view(1, 3, 1, 1), persistent=False)

    def activations(self, image: Tensor) -> list[Tensor]:
        """Channel-normalised activations of images (B, 3, H, W) in [-1, 1], one per tap.

        Raises:
            ValueError: If a side is below 32 pixels.
        """
        if min(image.shape[2:]) < SMALLEST_SIDE:
            raise ValueError(
                f"images of {tuple(image.shape[2:])} pixels are too small for LPIPS; "
                f"{SMALLEST_SIDE} is the least"
            )
        x, taps = (image - self.shift) / self.scale, []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in _TAPS[self.trunk]:
                taps.append(unit_channels(x))
        return taps

    def distance(self, first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
        """LPIPS of activations of two batches of B images, (B,) float32."""
        return weighted_distance(first, second, list(self.lin))

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return self.distance(self.activations(first), self.activations(second))


def unit_channels(activation: Tensor) -> Tensor:
    """Divide the channel vector of every pixel by its length, (B, C, H, W)."""
    return activation / (activation.square().sum(1, keepdim=True).sqrt() + _UNIT_EPS)


def weighted_distance(
    first: Sequence[Tensor], second: Sequence[Tensor], weights: Sequence[Tensor]
) -> Tensor:
    """Sum over taps of the pixel mean of weighted squared differences, (B,).

    Args:
        first: Normalised activations (B, C, H, W), one per tap.
        second: The same of the other images.
        weights: Non-negative, (1, C, 1, 1), one per tap.

    Source: Zhang et al. 2018, Eq. 1, version 0.1.
    """
    taps = [
        (w * (a - b).square()).sum(1).mean((1, 2))
        for a, b, w in zip(first, second, weights, strict=True)
    ]
    return torch.stack(taps).sum(0)


def load_lpips(trunk: Trunk, features: Mapping[str, Tensor], linear: Mapping[str, Tensor]) -> Lpips:
    """A network in evaluation mode.

    Args:
        trunk: Which network.
        features: torchvision's tensors; the classifier is left aside.
        linear: `lin<k>.model.1.weight` of LPIPS 0.1.

    Raises:
        WeightsError: Naming what is missing, unknown or of another shape.
    """
    network = Lpips(trunk).eval().requires_grad_(False)
    state = {k: v.float() for k, v in features.items() if not k.startswith("classifier.")}
    for index in range(len(CHANNELS[trunk])):
        key = f"lin{index}.model.1.weight"
        if key in linear:
            state[f"lin.{index}"] = linear[key].float()
    wanted = network.state_dict()
    missing = sorted(wanted.keys() - state.keys())
    unknown = sorted(state.keys() - wanted.keys())
    shaped = sorted(n for n in wanted.keys() & state.keys() if wanted[n].shape != state[n].shape)
    if missing or unknown or shaped:
        raise WeightsError(
            f"these are not the weights of LPIPS with trunk '{trunk}' (missing: {missing[:3]}; "
            f"unknown: {unknown[:3]}; of another shape: {shaped[:3]})"
        )
    network.load_state_dict(state)
    return network


def _alexnet() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 64, 11, stride=4, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2),
        nn.Conv2d(64, 192, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2),
        nn.Conv2d(192, 384, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1),
        nn.ReLU(),
    )


def _squeezenet() -> nn.Sequential:
    def pool() -> nn.Module:
        return nn.MaxPool2d(3, stride=2, ceil_mode=True)

    return nn.Sequential(
        nn.Conv2d(3, 64, 3, stride=2),
        nn.ReLU(),
        pool(),
        Fire(64, 16, 64),
        Fire(128, 16, 64),
        pool(),
        Fire(128, 32, 128),
        Fire(256, 32, 128),
        pool(),
        Fire(256, 48, 192),
        Fire(384, 48, 192),
        Fire(384, 64, 256),
        Fire(512, 64, 256),
    )


def _vgg16() -> nn.Sequential:
    layers: list[nn.Module] = []
    c_in = 3
    for block, (width, depth) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))):
        if block:
            layers.append(nn.MaxPool2d(2))
        for _ in range(depth):
            layers += [nn.Conv2d(c_in, width, 3, padding=1), nn.ReLU()]
            c_in = width
    return nn.Sequential(*layers)
