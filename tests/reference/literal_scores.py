"""The definitions of mDice and mIoU restated pixel by pixel and threshold by threshold, slowly."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Image = tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_], npt.NDArray[np.bool_]]


def dice_iou(predicted: Sequence[bool], truth: Sequence[bool], empty: float) -> tuple[float, float]:
    both = sum(1 for p, t in zip(predicted, truth, strict=True) if p and t)
    first = sum(1 for p in predicted if p)
    second = sum(1 for t in truth if t)
    if first + second == 0:
        return empty, empty
    return 2 * both / (first + second), both / (first + second - both)


def sweep(images: Sequence[Image]) -> tuple[Array, Array]:
    """Mean over images of Dice and IoU at each threshold, (256,) each."""
    dice, iou = np.zeros(256), np.zeros(256)
    for grey, _, truth in images:
        value = grey.astype(np.float64) / 255
        if value.max() > value.min():
            value = (value - value.min()) / (value.max() - value.min())
        level = np.floor(255 * value + 1e-9)
        for j in range(256):
            pair = dice_iou(list((level >= j).ravel()), list(truth.ravel()), 0.0)
            dice[j] += pair[0] / len(images)
            iou[j] += pair[1] / len(images)
    return dice, iou


def scores(images: Sequence[Image], absent: str) -> dict[str, tuple[float, float]]:
    empty = 1.0 if absent == "one" else float("nan")
    front, both = [], []
    for _, decision, truth in images:
        fg = dice_iou(list(decision.ravel()), list(truth.ravel()), empty)
        bg = dice_iou(list(~decision.ravel()), list(~truth.ravel()), empty)
        front.append(fg)
        both.append([np.nanmean([f, b]) for f, b in zip(fg, bg, strict=True)])
    decided = [bool(v) for _, d, _ in images for v in d.ravel()]
    true = [bool(v) for _, _, t in images for v in t.ravel()]
    pooled = dice_iou(decided, true, empty)
    other = dice_iou([not v for v in decided], [not v for v in true], empty)
    dice, iou = sweep(images)
    found = {
        "sweep_fg": (dice.mean(), iou.mean()),
        "sweep_fg_max": (dice.max(), iou.max()),
        "image_fg": np.nanmean(np.array(front), axis=0),
        "image_2c": np.nanmean(np.array(both), axis=0),
        "pooled_fg": pooled,
        "pooled_2c": np.nanmean(np.array([pooled, other]), axis=0),
    }
    return {name: (float(pair[0]), float(pair[1])) for name, pair in found.items()}
