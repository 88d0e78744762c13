"""Panels of an audit: rows of small pictures with a line of text each. Pillow alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, ImageDraw

from siamese_diffusion.core.artifacts import atomic_write_bytes
from siamese_diffusion.data.images import Pixels, encode_png, resize_image

_SIDE: Final = 160  # pixels of a picture
_TEXT: Final = 34  # pixels under a row
_INK: Final = (30, 30, 30)
_CYAN: Final = (0, 240, 255)  # mucosa and skin hold no cyan
_YELLOW: Final = (255, 220, 0)


@dataclass(frozen=True)
class PanelRow:
    """Pictures side by side, RGB uint8 of any size, over up to two lines of text."""

    pictures: tuple[Pixels, ...]
    text: str


def write_panel(path: Path, rows: Sequence[PanelRow]) -> None:
    """Write a PNG with all rows, one below the other.

    Raises:
        OutputError: If it cannot be written.
    """
    columns = max(len(row.pictures) for row in rows)
    width = max(columns * (_SIDE + 4) + 4, 420)
    canvas = Image.new("RGB", (width, len(rows) * (_SIDE + _TEXT + 4) + 4), (255, 255, 255))
    draw = ImageDraw.Draw(canvas)
    top = 4
    for row in rows:
        for column, picture in enumerate(row.pictures):
            canvas.paste(Image.fromarray(resize_image(picture, _SIDE)), (4 + column * 164, top))
        draw.multiline_text((6, top + _SIDE + 2), row.text, fill=_INK)
        top += _SIDE + _TEXT + 4
    atomic_write_bytes(path, encode_png(canvas))


def outlined(image: Pixels, mask: Pixels, found: Pixels | None = None) -> Pixels:
    """An image with the outline of its mask in cyan, and of what was found in yellow.

    Args:
        image: RGB uint8 (H, W, 3).
        mask: uint8 (H, W), foreground above 127.
        found: The same, or None.
    """
    drawn = image.copy()
    layers: list[tuple[Pixels, tuple[int, int, int]]] = [(mask, _CYAN)]
    if found is not None:
        layers.append((found, _YELLOW))
    for layer, colour in layers:
        inside = np.pad(layer > 127, 1, mode="edge")
        core = inside[:-2, 1:-1] & inside[2:, 1:-1] & inside[1:-1, :-2] & inside[1:-1, 2:]
        drawn[(layer > 127) & ~core] = colour
    return drawn
