"""The two formula pictures of the test vectors, and small folders of images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image


def picture_a(side: int) -> npt.NDArray[np.uint8]:
    """(5i + 3j + 40c) mod 256 at row i, column j, channel c."""
    i, j, c = np.mgrid[:side, :side, :3]
    return np.asarray((5 * i + 3 * j + 40 * c) % 256, dtype=np.uint8)


def picture_b(side: int) -> npt.NDArray[np.uint8]:
    """(ij + 7i + 90c) mod 256."""
    i, j, c = np.mgrid[:side, :side, :3]
    return np.asarray((i * j + 7 * i + 90 * c) % 256, dtype=np.uint8)


def write_images(folder: Path, n: int, *, side: int = 48, seed: int = 0, tint: int = 0) -> Path:
    """A data-set folder of `n` smooth random images, without masks."""
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True)
    for number in range(n):
        coarse = rng.integers(0, 200, (6, 6, 3)).astype(np.uint8)
        image = np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC))
        image = np.clip(image.astype(int) + tint, 0, 255).astype(np.uint8)
        Image.fromarray(image).save(folder / "images" / f"p{number:03d}.png")
    return folder
