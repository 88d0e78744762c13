"""The panel: rows are masks, columns are methods."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from siamese_diffusion.comparison.panel import panel
from siamese_diffusion.data.pairs import PairFolder


def test_each_place_holds_the_picture_of_its_row_and_column(phantoms: Path, tmp_path: Path) -> None:
    reference = PairFolder.open(phantoms, split="val")
    made = tmp_path / "made"
    (made / "images").mkdir(parents=True)
    (made / "masks").mkdir()
    for number, pair in enumerate(reference.pairs):
        flat = np.full((64, 64, 3), number * 20, np.uint8)
        Image.fromarray(flat).save(made / "images" / f"{pair.stem}.png")
        assert pair.mask is not None
        shutil.copyfile(pair.mask, made / "masks" / f"{pair.stem}.png")
    sheet = np.asarray(panel(reference, {"flat": made}, size=32, rows=2))
    second = len(reference) // 2
    top, lefts = 16 + 4 + 36, [4, 4 + 36, 4 + 72]
    cells = [sheet[top : top + 32, left : left + 32] for left in lefts]
    assert np.array_equal(cells[0][..., 0], reference.mask(second, 32))
    assert np.array_equal(cells[1], reference.image(second, 32))
    assert np.array_equal(cells[2], np.full((32, 32, 3), second * 20))
    assert sheet.shape == (2 * 36 + 4 + 16, 3 * 36 + 4, 3)
