"""Small descriptors of whole pictures that survive flips, turns, crops, recompression and tints.

Pixels at low resolution, each channel brought to mean 0 and deviation 1: brightness, contrast and
linear tints go, and so does fine noise. Flips and quarter turns are tried on one side, crops on the
other. Two pictures are as far apart as 1 - correlation, from 0 (copies) to 2.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from siamese_diffusion.data.images import Pixels, read_image, resize_image
from siamese_diffusion.data.listing import collect
from siamese_diffusion.metrics.sets import ImageFile, ImageSet

Rows = npt.NDArray[np.float32]
THUMB: Final = 64  # pixels; what is kept of a picture
COARSE: Final = 16  # pixels; every pair is compared at this size
FINE: Final = 32  # pixels; the closest pairs are compared again at this size
TURNS: Final = 8  # quarter turns, and the same mirrored
_COARSE_SCALES: Final = (1.0, 0.9, 0.8)
_FINE_SCALES: Final = (1.0, 0.95, 0.9, 0.85, 0.8)
_FINE_STEPS: Final = 5  # positions of a crop along each side


def thumbnails(images: ImageSet) -> Pixels:
    """All pictures at 64 pixels, (n, 64, 64, 3) uint8.

    Raises:
        DataError: Naming all files that cannot be read.
    """
    result = np.empty((len(images), THUMB, THUMB, 3), np.uint8)

    def load(item: tuple[int, ImageFile]) -> None:
        index, file = item
        result[index] = resize_image(read_image(file.path), THUMB)

    collect(load, list(enumerate(images.files)))
    return result


def turned(image: Pixels, turn: int) -> Pixels:
    """One of the eight flips and quarter turns of (H, W, 3); 0 leaves the picture as it is."""
    flipped = image[:, ::-1] if turn >= 4 else image
    return np.ascontiguousarray(np.rot90(flipped, turn % 4))


def turn_name(turn: int) -> str:
    """In words."""
    angle = f"turned by {90 * (turn % 4)} degrees" if turn % 4 else ""
    return (
        " and ".join(part for part in ("mirrored" if turn >= 4 else "", angle) if part) or "as is"
    )


def standardise(planes: Tensor) -> Tensor:
    """Pictures (..., 3, s, s) to unit rows (..., 3 s s), each channel of mean 0 and equal weight.

    A channel without contrast counts as zero.
    """
    centred = planes - planes.mean((-2, -1), keepdim=True)
    deviation = centred.square().mean((-2, -1), keepdim=True).sqrt()
    scaled = torch.where(deviation > 0.5, centred / deviation.clamp_min(0.5), 0.0)
    return F.normalize(scaled.flatten(-3), dim=-1)


def coarse_turned(thumbs: Pixels) -> Rows:
    """Rows of every picture under all eight turns, (n, 8, d)."""
    rows = [
        standardise(_shrink(_planes(np.stack([turned(t, k) for t in thumbs])), COARSE))
        for k in range(TURNS)
    ]
    return np.asarray(torch.stack(rows, 1).numpy(), dtype=np.float32)


def coarse_cropped(thumbs: Pixels) -> Rows:
    """Rows of every picture and of crops of it, (n, crops, d)."""
    boxes = [box for scale in _COARSE_SCALES for box in _boxes(scale, corners_only=True)]
    planes = _planes(thumbs)
    rows = [standardise(_crop(planes, box, COARSE)) for box in boxes]
    return np.asarray(torch.stack(rows, 1).numpy(), dtype=np.float32)


def fine_distances(queries: Pixels, candidates: Pixels) -> npt.NDArray[np.float64]:
    """1 - the best correlation of each turned query with any crop of its candidate.

    Args:
        queries: (p, 64, 64, 3) uint8.
        candidates: The same; candidate i belongs to query i.

    Returns:
        (p,), at least 0.
    """
    rows = standardise(_crop(_planes(queries), (0, 0, THUMB), FINE))
    planes = _planes(candidates)
    best = torch.full((len(queries),), -1.0)
    for scale in _FINE_SCALES:
        for box in _boxes(scale, corners_only=False):
            best = torch.maximum(best, (standardise(_crop(planes, box, FINE)) * rows).sum(1))
    return np.clip(1.0 - best.numpy().astype(np.float64), 0.0, None)


def _planes(pictures: npt.NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float()


def _shrink(planes: Tensor, side: int) -> Tensor:
    return F.interpolate(planes, (side, side), mode="bilinear", antialias=True)


def _crop(planes: Tensor, box: tuple[int, int, int], side: int) -> Tensor:
    top, left, size = box
    part = planes[..., top : top + size, left : left + size]
    if size <= 2 * side:  # bilinear reads every pixel; antialiasing is many times slower
        return F.interpolate(part, (side, side), mode="bilinear")
    return _shrink(part, side)


def _boxes(scale: float, *, corners_only: bool) -> list[tuple[int, int, int]]:
    """(top, left, size) in thumbnail pixels: centre and corners, or a grid of positions."""
    size = round(THUMB * scale)
    free = THUMB - size
    if free == 0:
        return [(0, 0, size)]
    if corners_only:
        corners = [(top, left, size) for top in (0, free) for left in (0, free)]
        return [(free // 2, free // 2, size), *corners]
    places = sorted({round(free * step / (_FINE_STEPS - 1)) for step in range(_FINE_STEPS)})
    return [(top, left, size) for top in places for left in places]
