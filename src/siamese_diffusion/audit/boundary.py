"""How far apart two outlines are, in shares of the picture's diagonal."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from siamese_diffusion.metrics.statistics import Real

Map = npt.NDArray[np.bool_]


def outline(mask: Map) -> Map:
    """Foreground pixels (H, W) with a background pixel beside them; the picture's edge is none."""
    inside = np.pad(mask, 1, mode="edge")
    core = inside[:-2, 1:-1] & inside[2:, 1:-1] & inside[1:-1, :-2] & inside[1:-1, 2:]
    return np.asarray(mask & ~core, dtype=np.bool_)


def boundary_distance(first: Map, second: Map) -> float:
    """Mean distance from each outline to the other, both ways averaged, over the diagonal.

    Args:
        first: (H, W) bool.
        second: The same.

    Returns:
        From 0, equal outlines, to 1. Two maps without outline are at 0, one without at 1.
    """
    a, b = outline(first), outline(second)
    if not a.any() and not b.any():
        return 0.0 if bool((first == second).all()) else 1.0
    if not a.any() or not b.any():
        return 1.0
    to_b: Real = ndimage.distance_transform_edt(~b)
    to_a: Real = ndimage.distance_transform_edt(~a)
    mean = (float(to_b[a].mean()) + float(to_a[b].mean())) / 2
    return mean / float(np.hypot(*first.shape))
