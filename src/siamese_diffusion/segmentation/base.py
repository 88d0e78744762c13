"""What a segmenter is: images in, logits out, its loss, and how its map is made for scoring.

Training loop, checkpoints, mixing of data, augmentation, evaluation and the command line are
inherited by whatever fits here. One network, one file.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from siamese_diffusion.core.errors import ConfigError
from siamese_diffusion.segmentation.settings import SegmentSettings

Normalisation = Literal["imagenet", "minmax"]
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Outputs:
    """What one forward pass gives.

    Attributes:
        logits: (B, 1, h, w) for the foreground, or (B, 2, h, w) for background and foreground; at
            the network's own output stride.
        auxiliary: Whatever else the loss needs, by name.
    """

    logits: Tensor
    auxiliary: Mapping[str, Tensor] = field(default_factory=dict)


class Segmenter(nn.Module):
    """Base of all networks here.

    Attributes:
        Settings: Class of its run settings, with its recipe as defaults.
        multiple: Input sides must be multiples of this, in pixels, and no smaller than `smallest`.
        align_corners: How logits are resized.
        normalisation: How images are prepared: ImageNet statistics, or the range of each image.
        has_encoder: Whether its submodule `encoder` is one that ImageNet weights are for.
    """

    Settings: ClassVar[type[SegmentSettings]]
    multiple: ClassVar[int] = 1
    smallest: ClassVar[int] = 32
    align_corners: ClassVar[bool] = False
    normalisation: ClassVar[Normalisation] = "imagenet"
    has_encoder: ClassVar[bool] = True

    @abstractmethod
    def forward(self, images: Tensor) -> Outputs:
        """Prepared images (B, 3, H, W) to logits."""

    @abstractmethod
    def loss(self, outputs: Outputs, masks: Tensor) -> dict[str, Tensor]:
        """Named scalar terms whose sum is trained; masks (B, 1, H, W) float32 in {0, 1}.

        Randomness comes from torch's global generator, which the training task seeds.
        """

    @classmethod
    @abstractmethod
    def published_names(cls, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors of the authors' published checkpoint under the names of this class."""

    @classmethod
    def encoder_names(cls, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors of a published ImageNet checkpoint under the names of `encoder`."""
        raise ConfigError(
            f"{cls.__name__} has no encoder with published ImageNet weights",
            hint="leave --encoder-weights out",
        )

    def prepare(self, images: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) uint8 to what `forward` takes, float32."""
        x = images.float()
        if self.normalisation == "minmax":
            low = x.amin((1, 2, 3), keepdim=True)
            spread = x.amax((1, 2, 3), keepdim=True) - low
            return (x - low) / spread.clamp_min(1.0)  # a constant picture becomes 0
        mean = torch.tensor(IMAGENET_MEAN, device=x.device).view(1, 3, 1, 1)
        std = torch.tensor(IMAGENET_STD, device=x.device).view(1, 3, 1, 1)
        return (x / 255 - mean) / std

    def resize(self, logits: Tensor, size: Sequence[int]) -> Tensor:
        """Logits at another size, bilinear, with this network's corner rule."""
        return F.interpolate(
            logits, size=list(size), mode="bilinear", align_corners=self.align_corners
        )

    def foreground(self, outputs: Outputs, size: Sequence[int]) -> Tensor:
        """One logit for the foreground at `size`, (B, 1, H, W): positive means foreground."""
        z = self.resize(outputs.logits.float(), size)
        return z if z.shape[1] == 1 else z[:, 1:] - z[:, :1]

    def probability(self, logit: Tensor) -> Tensor:
        """Map in [0, 1] from `foreground`, same shape, as the authors store it for scoring.

        By default the sigmoid, min-max normalised per image.
        """
        p = logit.sigmoid()
        low = p.amin((1, 2, 3), keepdim=True)
        spread = p.amax((1, 2, 3), keepdim=True) - low
        return torch.where(spread > 0, (p - low) / (spread + 1e-8), p)

    def scaled_groups(self) -> list[tuple[list[nn.Parameter], float]]:
        """Parameters with the factor on their learning rate, all of them once."""
        return [([p for p in self.parameters() if p.requires_grad], 1.0)]

    def check_size(self, images: Tensor) -> None:
        """Refuse sides that the network cannot halve.

        Raises:
            ConfigError: With the next size that works.
        """
        height, width = images.shape[-2:]
        m, least = self.multiple, self.smallest
        if height % m or width % m or min(height, width) < least:
            fits = [max(least, -(-side // m) * m) for side in (height, width)]
            raise ConfigError(
                f"{type(self).__name__} was given {height} x {width} pixels; sides must be "
                f"multiples of {m}, {least} or more",
                hint=f"use {fits[0]} x {fits[1]}",
            )
