"""Named ways to bring a picture to a network's input size; the name is part of every value.

Libraries resize differently and change their ways between versions, which moves metrics more than
methods differ. So all resizing is done here. Input is RGB uint8 (H, W, 3), output float32
(3, side, side) in 0 to 255, neither rounded nor scaled.
"""

from __future__ import annotations

from typing import Final, get_args

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch.nn import functional as F

from siamese_diffusion.data.images import Pixels
from siamese_diffusion.metrics.settings import Variant

VARIANTS: Final[tuple[Variant, ...]] = get_args(Variant)
Planes = npt.NDArray[np.float32]


def resize(image: Pixels, side: int, variant: Variant) -> Planes:
    """Resize to a square without keeping the aspect.

    Args:
        image: RGB uint8 (H, W, 3).
        side: Pixels.
        variant: `clean`: Pillow's bicubic on each channel in float, antialiased, clipped to
            0..255 (clean-fid); `torch`: bilinear, half-pixel centres, not antialiased
            (pytorch-fid); `torch_aa`: the same antialiased (torchmetrics from 1.8); `tf1`:
            bilinear without half-pixel shift (the original graph, torch-fidelity).

    Returns:
        float32 (3, side, side) in 0..255.
    """
    if variant == "clean":
        channels = [
            np.asarray(
                Image.fromarray(image[..., c].astype(np.float32)).resize(
                    (side, side), Image.Resampling.BICUBIC
                )
            )
            for c in range(3)
        ]
        return np.asarray(np.clip(np.stack(channels), 0.0, 255.0), dtype=np.float32)
    planes = np.ascontiguousarray(image.transpose(2, 0, 1), dtype=np.float32)
    if variant == "tf1":
        return _bilinear_tf1(planes, side)
    resized = F.interpolate(
        torch.from_numpy(planes)[None],
        size=(side, side),
        mode="bilinear",
        align_corners=False,
        antialias=variant == "torch_aa",
    )
    return np.asarray(resized[0], dtype=np.float32)


def scale(planes: Planes, variant: Variant) -> Planes:
    """Bring 0..255 to the nominal range [-1, 1] as the variant's library does."""
    if variant == "torch":
        return (2.0 * (planes / np.float32(255.0)) - 1.0).astype(np.float32)
    return ((planes - 128.0) / 128.0).astype(np.float32)


def square_crop(image: Pixels, side: int, resample: Image.Resampling) -> Pixels:
    """Resize the shorter side by Pillow (antialiased), then crop the centre: (side, side, 3)."""
    height, width = image.shape[:2]
    factor = side / min(height, width)
    size = (max(side, round(width * factor)), max(side, round(height * factor)))
    picture = Image.fromarray(image)
    if picture.size != size:
        picture = picture.resize(size, resample)
    left, top = (size[0] - side) // 2, (size[1] - side) // 2
    return np.asarray(picture.crop((left, top, left + side, top + side)), dtype=np.uint8)


def _bilinear_tf1(planes: Planes, side: int) -> Planes:
    """Source index = target index x in / out; the last rows and columns repeat."""
    for axis in (1, 2):
        length = planes.shape[axis]
        position = np.arange(side, dtype=np.float32) * np.float32(length / side)
        low = np.floor(position).astype(np.intp)
        high = np.minimum(low + 1, length - 1)
        shape = [1, 1, 1]
        shape[axis] = side
        part = (position - low).astype(np.float32).reshape(shape)
        first, second = np.take(planes, low, axis), np.take(planes, high, axis)
        planes = first + (second - first) * part
    return planes
