"""A picture like the paper's Figure 5: rows are masks, columns are methods, seeds are the same."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from siamese_diffusion.data.pairs import PairFolder

ROWS = 6
_GAP, _HEAD = 4, 16


def panel(
    reference: PairFolder, sets: Mapping[str, Path], *, size: int, rows: int = ROWS
) -> Image.Image:
    """Masks, real images and each method's images for the same masks.

    Args:
        reference: Pairs that were sampled from.
        sets: Column heading to synthetic set, in order.
        size: Side of a picture in pixels.
        rows: How many masks, evenly spaced.
    """
    n = min(rows, len(reference))
    chosen = [int(i * len(reference) / n) for i in range(n)]
    folders = {name: PairFolder.open(path) for name, path in sets.items()}
    heads = ["mask", "real", *folders]
    step = size + _GAP
    sheet = Image.new("RGB", (len(heads) * step + _GAP, n * step + _GAP + _HEAD), "white")
    pen = ImageDraw.Draw(sheet)
    for column, head in enumerate(heads):
        pen.text((_GAP + column * step, 2), head, fill="black")
    for row, position in enumerate(chosen):
        stem = reference.stems[position]
        pictures = [
            np.repeat(reference.mask(position, size)[..., None], 3, axis=2),
            reference.image(position, size),
        ]
        pictures += [f.image(f.stems.index(stem), size) for f in folders.values()]
        for column, picture in enumerate(pictures):
            place = (_GAP + column * step, _HEAD + _GAP + row * step)
            sheet.paste(Image.fromarray(picture), place)
    return sheet
