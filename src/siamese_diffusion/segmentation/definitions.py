"""Every meaning of "mDice" and "mIoU" that the paper's tables use, under its own short name.

| name | unit that is averaged | classes | decision |
|---|---|---|---|
| `sweep_fg` | image, then 256 thresholds | foreground | every threshold of the normalised map |
| `sweep_fg_max` | image; the best threshold of the set | foreground | as above |
| `image_fg` | image | foreground | one half |
| `image_2c` | image and class | background, foreground | one half |
| `pooled_fg` | counts summed over the set | foreground | one half |
| `pooled_2c` | class; counts summed over the set | background, foreground | one half |

Scores are fractions in [0, 1]. A class that is absent from truth and decision alike scores 1, or
is left out of the mean (`absent="skip"`); the sweep keeps the toolbox's rule, 0 without a true
positive. Free of torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from siamese_diffusion.core.config import nearest
from siamese_diffusion.core.errors import ConfigError
from siamese_diffusion.segmentation.counts import Counts, Integers, threshold_counts

Floats = npt.NDArray[np.float64]
Absent = Literal["one", "skip"]
Resolution = Literal["mask", "network"]

SWEEP: Final = "sweep_fg"
SWEEP_MAX: Final = "sweep_fg_max"
IMAGE_FG: Final = "image_fg"
IMAGE_2C: Final = "image_2c"
POOLED_FG: Final = "pooled_fg"
POOLED_2C: Final = "pooled_2c"
DEFINITIONS: Final = (SWEEP, SWEEP_MAX, IMAGE_FG, IMAGE_2C, POOLED_FG, POOLED_2C)
PER_IMAGE: Final = (SWEEP, IMAGE_FG, IMAGE_2C)
RESAMPLES: Final = 1000
LEVEL: Final = 0.95


@dataclass(frozen=True)
class Protocol:
    """What one table of the paper prints as mDice and mIoU.

    Attributes:
        dice: Definition behind mDice.
        iou: Definition behind mIoU.
        resolution: At the size of the stored mask, or at the network's input size.
        used_by: Tables of the paper.
    """

    dice: str
    iou: str
    resolution: Resolution
    used_by: str


# Which definition stands behind which table; Sec. 4.1 of the paper does not say, see
# docs/deviations.md for how certain each is.
PROTOCOLS: Final[Mapping[str, Protocol]] = {
    "polyp": Protocol(SWEEP, SWEEP, "mask", "Tables 2, 5, 6 (SANet, Polyp-PVT, CTNet)"),
    "isic-unet": Protocol(POOLED_FG, POOLED_2C, "network", "Tables 3, 6 (UNet)"),
    "segformer": Protocol(IMAGE_2C, IMAGE_2C, "network", "Tables 3, 4, 6, Figure 7 (SegFormer)"),
}


@dataclass(frozen=True)
class Score:
    """Dice and IoU of one definition, each with the ends of a bootstrap interval if asked for."""

    dice: float
    iou: float
    dice_interval: tuple[float, float] | None = None
    iou_interval: tuple[float, float] | None = None


def find_protocols(name: str) -> dict[str, Protocol]:
    """The named protocol, or every one for "all".

    Raises:
        ConfigError: With all names, if it is unknown.
    """
    if name == "all":
        return dict(PROTOCOLS)
    if name not in PROTOCOLS:
        names = [*PROTOCOLS, "all"]
        raise ConfigError(
            f"unknown protocol '{name}'{nearest(name, names)}",
            hint=f"choose one of: {', '.join(names)}",
        )
    return {name: PROTOCOLS[name]}


def overlap(tp: Integers, fp: Integers, fn: Integers, *, empty: float) -> tuple[Floats, Floats]:
    """Dice 2 tp / (2 tp + fp + fn) and IoU tp / (tp + fp + fn); `empty` where all three are 0."""
    union = (tp + fp + fn).astype(np.float64)
    nothing = union == 0
    safe = np.where(nothing, 1.0, union)
    dice = np.where(nothing, empty, 2 * tp / (safe + tp))
    return dice, np.where(nothing, empty, tp / safe)


def sweep_curves(counts: Counts) -> tuple[Floats, Floats]:
    """Dice and IoU of each image at each threshold, (N, 256); 0 without a true positive."""
    return overlap(*threshold_counts(counts), empty=0.0)


def image_values(counts: Counts, *, absent: Absent = "one") -> dict[str, tuple[Floats, Floats]]:
    """Dice and IoU of each image, (N,), for the definitions that average over images.

    With `absent="skip"` an image whose score is undefined holds NaN.
    """
    empty = 1.0 if absent == "one" else np.nan
    front = overlap(counts.tp, counts.fp, counts.fn, empty=empty)
    back = overlap(counts.tn, counts.fn, counts.fp, empty=empty)
    curves = sweep_curves(counts)
    return {
        SWEEP: (curves[0].mean(1), curves[1].mean(1)),
        IMAGE_FG: front,
        IMAGE_2C: (_mean_defined(front[0], back[0]), _mean_defined(front[1], back[1])),
    }


def score_set(
    counts: Counts, *, absent: Absent = "one", resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Score]:
    """Every definition over one test set, with bootstrap intervals over its images.

    Args:
        counts: Of the set.
        absent: Rule for classes absent from truth and decision.
        resamples: Bootstrap resamples; 0 leaves the intervals out.
        seed: Of the resampling.
    """
    return score_sets([counts], absent=absent, resamples=resamples, seed=seed)


def score_sets(
    sets: Sequence[Counts], *, absent: Absent = "one", resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Score]:
    """Every definition, averaged over test sets with their numbers of images as weights.

    This is the paper's "Overall" (Table 2). For `sweep_fg` and the `image_*` definitions it equals
    the mean over all images; sets are resampled each on its own, so their sizes stay as they are.

    Raises:
        ValueError: If there is no set.
    """
    if not sets:
        raise ValueError("there is no set to score")
    weights = np.array([len(counts) for counts in sets], np.float64)
    weights /= weights.sum()
    once = [_estimates(counts, np.ones((1, len(counts))), absent) for counts in sets]
    drawn: list[dict[str, Floats]] = []
    if resamples:
        rng = np.random.default_rng(seed)
        for counts in sets:
            n = len(counts)
            draws = rng.multinomial(n, np.full(n, 1 / n), size=resamples).astype(np.float64)
            drawn.append(_estimates(counts, draws, absent))
    scores = {}
    for name in DEFINITIONS:
        value = _weighted([part[name] for part in once], weights)[:, 0]
        if not resamples:
            scores[name] = Score(float(value[0]), float(value[1]))
            continue
        spread = _weighted([part[name] for part in drawn], weights)
        ends = [interval(row) for row in spread]
        scores[name] = Score(float(value[0]), float(value[1]), ends[0], ends[1])
    return scores


def interval(values: Floats, *, level: float = LEVEL) -> tuple[float, float]:
    """Ends of the central percentile interval; NaN values are left out."""
    tail = 100 * (1 - level) / 2
    defined = values[~np.isnan(values)]
    if not len(defined):
        return float("nan"), float("nan")
    low, high = np.percentile(defined, [tail, 100 - tail])
    return float(low), float(high)


def _estimates(counts: Counts, draws: Floats, absent: Absent) -> dict[str, Floats]:
    """Dice and IoU of each definition for each row of image weights, (2, R)."""
    found = {
        name: _means(draws, pair) for name, pair in image_values(counts, absent=absent).items()
    }
    totals = draws.sum(1, keepdims=True)
    found[SWEEP_MAX] = np.stack([(draws @ c / totals).max(1) for c in sweep_curves(counts)])
    empty = 1.0 if absent == "one" else np.nan
    tp, fp, fn, tn = (
        np.rint(draws @ part).astype(np.int64)
        for part in (counts.tp, counts.fp, counts.fn, counts.tn)
    )
    front, back = overlap(tp, fp, fn, empty=empty), overlap(tn, fn, fp, empty=empty)
    found[POOLED_FG] = np.stack(front)
    found[POOLED_2C] = np.stack([_mean_defined(f, b) for f, b in zip(front, back, strict=True)])
    return found


def _means(draws: Floats, pair: tuple[Floats, Floats]) -> Floats:
    rows = []
    for values in pair:
        defined = ~np.isnan(values)
        weight = draws @ defined.astype(np.float64)
        total = draws @ np.where(defined, values, 0.0)
        rows.append(np.where(weight > 0, total / np.where(weight > 0, weight, 1.0), np.nan))
    return np.stack(rows)


def _mean_defined(first: Floats, second: Floats) -> Floats:
    """Mean of two classes where both are defined, else the one that is."""
    return np.where(
        np.isnan(first), second, np.where(np.isnan(second), first, (first + second) / 2)
    )


def _weighted(parts: Sequence[Floats], weights: Floats) -> Floats:
    total: Floats = np.tensordot(weights, np.stack(parts), axes=1)
    return total
