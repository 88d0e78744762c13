"""SANet's colour exchange: one image's content with another's colour statistics, in CIE-Lab.

Free of torch. Unlike the release, which wraps values around at 0 and 255 by accident, this clips.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from siamese_diffusion.core.errors import DataError

Floats = npt.NDArray[np.float64]
Pixels = npt.NDArray[np.uint8]

# sRGB (IEC 61966-2-1), D65 white
_TO_XYZ = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)
_WHITE = _TO_XYZ.sum(1)
_EPSILON, _KAPPA = 216 / 24389, 24389 / 27
_LOW, _HIGH = np.array([0.0, -128.0, -128.0]), np.array([100.0, 127.0, 127.0])  # of 8-bit Lab
METADATA = "manifest.csv"


def to_lab(image: Pixels) -> Floats:
    """From sRGB uint8 (..., 3) to Lab: L in 0 to 100, a and b signed."""
    v = image / 255
    linear = np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)
    xyz = linear @ _TO_XYZ.T / _WHITE
    f = np.where(xyz > _EPSILON, np.cbrt(xyz), (_KAPPA * xyz + 16) / 116)
    x, y, z = f[..., 0], f[..., 1], f[..., 2]
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)


def from_lab(lab: Floats) -> Pixels:
    """From Lab (..., 3) to sRGB uint8; colours that a screen cannot show are clipped."""
    y = (lab[..., 0] + 16) / 116
    f = np.stack([y + lab[..., 1] / 500, y, y - lab[..., 2] / 200], -1)
    xyz = np.where(f**3 > _EPSILON, f**3, (116 * f - 16) / _KAPPA) * _WHITE
    linear = (xyz @ np.linalg.inv(_TO_XYZ).T).clip(0, 1)
    v = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    pixels: Pixels = np.rint(255 * v).astype(np.uint8)
    return pixels


def statistics(image: Pixels) -> Floats:
    """Mean and standard deviation of each Lab channel over all pixels, (2, 3)."""
    lab = to_lab(image).reshape(-1, 3)
    return np.stack([lab.mean(0), lab.std(0)])


def exchange(image: Pixels, own: Floats, other: Floats) -> Pixels:
    """The image with another's colour statistics.

    Args:
        image: (H, W, 3) uint8.
        own: Its `statistics`.
        other: Those it shall have. A channel without spread is only shifted.

    Source: SANet, colour exchange.
    """
    spread = np.where(own[1] > 0, other[1] / np.where(own[1] > 0, own[1], 1.0), 1.0)
    lab = (to_lab(image) - own[0]) * spread + other[0]
    return from_lab(np.clip(lab, _LOW, _HIGH))


def read_sources(root: Path, column: str) -> dict[str, str] | None:
    """Where each image of a set comes from, by stem; None if the set does not say.

    Reads the column of the set's `manifest.csv`, whose first column is the stem.

    Raises:
        DataError: If the file is there but is no table with that column.
    """
    path = root / METADATA
    if not path.is_file():
        return None
    try:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            rows: list[Mapping[str, str | None]] = list(csv.DictReader(handle))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"'{path}' cannot be read as a table ({error})") from error
    if not rows or "stem" not in rows[0] or column not in rows[0]:
        found = ", ".join(str(name) for name in rows[0]) if rows else "none"
        raise DataError(
            f"'{path}' has no columns 'stem' and '{column}' (columns: {found})",
            hint="name the column with --set colour.column=..., or switch colour.exchange off",
        )
    return {str(row["stem"]): str(row[column]) for row in rows}
