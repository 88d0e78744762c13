"""Where the masks of a synthetic set come from: as they are (`real`) or moved (`random`).

The paper names flip, scale and shift (Sec. 4.2, "Random" masks) and no ranges; ours are in
`RandomRecipe`. A transform is a small record that travels with the item and redraws its mask.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from siamese_diffusion.core.seeding import derive_seed
from siamese_diffusion.data.images import Pixels
from siamese_diffusion.data.settings import RandomRecipe

RecipeName = Literal["real", "random"]
TransformRecord = dict[str, float | bool | int]

# Shares of the drawn change that are tried in turn when no draw keeps the lesion.
_GENTLER: Final = (0.5, 0.25, 0.125, 0.0)
_DIGITS: Final = 6  # of recorded numbers; the mask is made from the rounded ones


def make_mask(
    mask: Pixels, *, seed: int, name: RecipeName = "random", recipe: RandomRecipe | None = None
) -> tuple[Pixels, TransformRecord]:
    """Draw one mask by the recipe's name; `real` gives the mask itself and an empty record."""
    if name == "real":
        return mask.copy(), {}
    return transform_mask(mask, seed=seed, recipe=recipe or RandomRecipe())


def transform_mask(
    mask: Pixels, *, seed: int, recipe: RandomRecipe
) -> tuple[Pixels, TransformRecord]:
    """Flip, scale about the lesion and shift, without losing the lesion.

    Draws that cut more than `max_cut` of the foreground or leave the area limits are repeated;
    after `attempts` of them the last one is made gentler until it fits, at the gentlest no
    scale and shift at all. An empty mask is only flipped.

    Args:
        mask: uint8 {0, 255} (H, W).
        seed: Of this item; equal seeds and masks give equal transforms.
        recipe: Ranges and limits.

    Returns:
        The new mask, same shape and values, and the record: `flip_horizontal`, `flip_vertical`,
        `scale` (of length), `shift_y`, `shift_x` (shares of the sides), `cut` (share of the
        foreground that left the picture), `area` (foreground share now), `draws` (draws made)
        and `gentleness` (share of the last draw that was kept; 1.0 is all of it).
    """
    rng = np.random.Generator(np.random.PCG64(derive_seed(seed, "mask-recipe")))
    record: TransformRecord = {
        "flip_horizontal": bool(rng.random() < recipe.flip_horizontal),
        "flip_vertical": bool(rng.random() < recipe.flip_vertical),
        "scale": 1.0,
        "shift_y": 0.0,
        "shift_x": 0.0,
    }
    flipped = _flip(mask, record)
    area = float(np.count_nonzero(mask)) / mask.size
    if area == 0.0:
        return flipped, record | {"cut": 0.0, "area": 0.0, "draws": 0, "gentleness": 0.0}
    scale, shift = 1.0, (0.0, 0.0)
    for draw in range(1, recipe.attempts + 1):
        low, high = (math.log(bound) for bound in recipe.scale)
        scale = math.exp(rng.uniform(low, high))
        shift = (rng.uniform(*recipe.shift), rng.uniform(*recipe.shift))
        found = _if_kept(flipped, record, scale, shift, recipe)
        if found is not None:
            return found[0], found[1] | {"draws": draw, "gentleness": 1.0}
    for share in _GENTLER:
        gentle = (shift[0] * share, shift[1] * share)
        found = _if_kept(flipped, record, 1.0 + (scale - 1.0) * share, gentle, recipe)
        if found is not None:
            return found[0], found[1] | {"draws": recipe.attempts, "gentleness": share}
    kept = {"cut": 0.0, "area": round(area, _DIGITS), "draws": recipe.attempts}
    return flipped, record | kept | {"gentleness": 0.0}


def apply_transform(mask: Pixels, record: Mapping[str, float | bool | int]) -> Pixels:
    """Redraw the mask of a record (its `draws`, `cut` and `area` are not read)."""
    return _move(
        _flip(mask, record),
        float(record.get("scale", 1.0)),
        (float(record.get("shift_y", 0.0)), float(record.get("shift_x", 0.0))),
    )


def _if_kept(
    flipped: Pixels,
    record: TransformRecord,
    scale: float,
    shift: tuple[float, float],
    recipe: RandomRecipe,
) -> tuple[Pixels, TransformRecord] | None:
    """The moved mask and its record, or None if it breaks a limit."""
    box = _box(flipped)
    if recipe.keep_border:
        scale, shift = _kept_at_border(box, flipped.shape, scale, shift)
    scale = round(scale, _DIGITS)
    shift = (round(shift[0], _DIGITS), round(shift[1], _DIGITS))
    rows, columns = np.nonzero(flipped)
    inside = np.ones(len(rows), dtype=np.bool_)
    for axis, places in enumerate((rows, columns)):
        low, high = box[axis]
        centre, side = (low + high) / 2, flipped.shape[axis]
        moved = (places - centre) * scale + centre + shift[axis] * side
        inside &= (moved >= -0.5) & (moved < side - 0.5)
    cut = 1.0 - float(inside.mean())
    result = _move(flipped, scale, shift)
    before = len(rows) / flipped.size
    after = float(np.count_nonzero(result)) / result.size
    # A lesion that is beyond a limit already may stay there, but not go further.
    smallest, largest = min(recipe.min_area, before), max(recipe.max_area, before)
    if after == 0.0 or cut > recipe.max_cut or not smallest <= after <= largest:
        return None
    numbers = {"scale": scale, "shift_y": shift[0], "shift_x": shift[1]}
    shares = {"cut": round(cut, _DIGITS), "area": round(after, _DIGITS)}
    return result, record | numbers | shares


def _kept_at_border(
    box: tuple[tuple[int, int], tuple[int, int]],
    shape: tuple[int, ...],
    scale: float,
    shift: tuple[float, float],
) -> tuple[float, tuple[float, float]]:
    """Correct scale and shift so that sides of the box on the border do not move inwards."""
    for (low, high), side in zip(box, shape, strict=True):
        if low == 0 and high == side - 1:
            scale = max(scale, 1.0)
    kept: list[float] = []
    for (low, high), side, share in zip(box, shape, shift, strict=True):
        half = (high - low + 1) / 2 * scale
        centre = (low + high + 1) / 2 + share * side  # in pixel edges
        if low == 0:
            centre = min(centre, half)
        if high == side - 1:
            centre = max(centre, side - half)
        kept.append((centre - (low + high + 1) / 2) / side)
    return scale, (kept[0], kept[1])


def _flip(mask: Pixels, record: Mapping[str, float | bool | int]) -> Pixels:
    flipped = mask
    if record.get("flip_horizontal", False):
        flipped = flipped[:, ::-1]
    if record.get("flip_vertical", False):
        flipped = flipped[::-1]
    return np.ascontiguousarray(flipped)


def _move(mask: Pixels, scale: float, shift: tuple[float, float]) -> Pixels:
    """Scale about the centre of the foreground's box and shift, by nearest neighbour."""
    if not mask.any():
        return mask.copy()
    sources: list[npt.NDArray[np.intp]] = []
    valid: list[npt.NDArray[np.bool_]] = []
    for (low, high), side, share in zip(_box(mask), mask.shape, shift, strict=True):
        centre = (low + high) / 2
        places = (np.arange(side) - centre - share * side) / scale + centre
        nearest = np.floor(places + 0.5).astype(np.intp)
        valid.append((nearest >= 0) & (nearest < side))
        sources.append(np.clip(nearest, 0, side - 1))
    moved = mask[np.ix_(sources[0], sources[1])]
    return np.where(np.logical_and.outer(valid[0], valid[1]), moved, np.uint8(0))


def _box(mask: Pixels) -> tuple[tuple[int, int], tuple[int, int]]:
    """First and last foreground row and column."""
    rows = np.flatnonzero(mask.any(axis=1))
    columns = np.flatnonzero(mask.any(axis=0))
    return (int(rows[0]), int(rows[-1])), (int(columns[0]), int(columns[-1]))
