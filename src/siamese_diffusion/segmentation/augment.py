"""Changes of an image together with its mask: drawn once, applied to both.

Masks are moved by nearest neighbour, so no value appears that was not there. The order is flips,
quarter turn, free turn, colours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from siamese_diffusion.segmentation.settings import AugmentSettings

BRIGHTNESS = 32.0  # grey levels up or down
CONTRAST = SATURATION = (0.5, 1.5)
HUE = 36.0  # degrees either way


@dataclass(frozen=True)
class Photometric:
    """What happens to the colours of one image.

    Attributes:
        brightness: Added to every channel, in grey levels.
        contrast, saturation: Factors.
        hue: Turn in degrees.
        contrast_last: Whether contrast comes after saturation and hue.
    """

    brightness: float
    contrast: float
    saturation: float
    hue: float
    contrast_last: bool


@dataclass(frozen=True)
class Draw:
    """One draw of everything that may happen to a pair.

    Attributes:
        flip_horizontal, flip_vertical: Mirror left and right, top and bottom.
        turns: Quarter turns, counter-clockwise.
        angle: Free turn in degrees, counter-clockwise.
        photometric: Of the image alone; None changes no colour.
    """

    flip_horizontal: bool = False
    flip_vertical: bool = False
    turns: int = 0
    angle: float = 0.0
    photometric: Photometric | None = None


def draw(settings: AugmentSettings, stream: torch.Generator) -> Draw:
    """Draw for one pair; every switch consumes the same numbers whether it is on or off."""
    u = torch.rand(14, generator=stream, dtype=torch.float64).tolist()
    return Draw(
        flip_horizontal=u[0] < settings.flip_horizontal,
        flip_vertical=u[1] < settings.flip_vertical,
        turns=int(4 * u[3]) if u[2] < settings.quarter_turns else 0,
        angle=settings.rotation * (2 * u[4] - 1),
        photometric=_draw_colours(u[5:]) if settings.photometric else None,
    )


def apply(image: Tensor, mask: Tensor, change: Draw) -> tuple[Tensor, Tensor]:
    """Apply one draw to a pair.

    Args:
        image: (3, S, S) uint8.
        mask: (S, S) uint8.
        change: What to do.

    Returns:
        New tensors of the same shapes and types.
    """
    axes = [d for on, d in ((change.flip_horizontal, -1), (change.flip_vertical, -2)) if on]
    image, mask = image.flip(axes), mask.flip(axes)
    if change.turns:
        image = image.rot90(change.turns, (-2, -1))
        mask = mask.rot90(change.turns, (-2, -1))
    if change.angle:
        image = _turn(image, change.angle, "bilinear")
        mask = _turn(mask[None], change.angle, "nearest")[0]
    if change.photometric is not None:
        image = change_colours(image, change.photometric)
    return image, mask


def change_colours(image: Tensor, change: Photometric) -> Tensor:
    """Brightness, contrast, saturation and hue of an image (3, S, S) uint8.

    Source: photometric distortion of the SegFormer release (MMSegmentation).
    """
    x = image.permute(1, 2, 0).numpy().astype(np.float32) + change.brightness
    x = x.clip(0, 255)
    if not change.contrast_last:
        x = (x * change.contrast).clip(0, 255)
    if change.saturation != 1 or change.hue:
        hsv = np.array(Image.fromarray(x.astype(np.uint8)).convert("HSV")).astype(np.float32)
        hsv[..., 0] = (hsv[..., 0] + change.hue * 256 / 360) % 256
        hsv[..., 1] = (hsv[..., 1] * change.saturation).clip(0, 255)
        x = np.array(Image.fromarray(hsv.astype(np.uint8), "HSV").convert("RGB"), np.float32)
    if change.contrast_last:
        x = (x * change.contrast).clip(0, 255)
    return torch.from_numpy(x.astype(np.uint8)).permute(2, 0, 1).contiguous()


def _draw_colours(u: list[float]) -> Photometric:
    def factor(on: float, where: float, ends: tuple[float, float]) -> float:
        return ends[0] + (ends[1] - ends[0]) * where if on < 0.5 else 1.0

    return Photometric(
        brightness=BRIGHTNESS * (2 * u[1] - 1) if u[0] < 0.5 else 0.0,
        contrast=factor(u[2], u[3], CONTRAST),
        saturation=factor(u[4], u[5], SATURATION),
        hue=HUE * (2 * u[7] - 1) if u[6] < 0.5 else 0.0,
        contrast_last=u[8] < 0.5,
    )


def _turn(picture: Tensor, degrees: float, mode: str) -> Tensor:
    """Turn (C, S, S) uint8 about its centre; what is uncovered becomes 0."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    # affine_grid says where each output pixel comes from, in coordinates whose y points down
    inverse = torch.tensor([[[c, -s, 0.0], [s, c, 0.0]]])
    grid = F.affine_grid(inverse, [1, *picture.shape], align_corners=False)
    turned = F.grid_sample(picture[None].float(), grid, mode=mode, align_corners=False)[0]
    return turned.round().clamp(0, 255).to(torch.uint8)
