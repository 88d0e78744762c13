"""Do synthetic images show their masks? Asked of a segmenter that saw real pairs only.

Its Dice on synthetic pairs is read between two anchors from the same run: real pairs it did not
see (what is attainable), and the synthetic images with each other's masks (what chance and the
habits of lesions give).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from siamese_diffusion.audit.segmenter import as_tensors, derangement, predict, train_segmenter
from siamese_diffusion.core.errors import DataError
from siamese_diffusion.data.pairs import PairFolder


def alignment(
    train: PairFolder,
    held_out: PairFolder,
    synthetic: PairFolder,
    *,
    size: int = 64,
    steps: int = 300,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, object]:
    """Train on real pairs, score real held-out, synthetic, and synthetic with shuffled masks.

    Args:
        train: Real pairs to train on.
        held_out: Real pairs it must not see.
        synthetic: The synthetic pairs.
        size: Side in pixels at which the segmenter works, a multiple of 8.
        steps: Updates of 16 pairs.
        seed: Of weights, order, flips and shuffling.

    Returns:
        Mean Dice per image (each in [0, 1]) and how it was measured. Foreground is where the
        logit is positive; two empty maps score 1.

    Raises:
        DataError: If there are fewer than two synthetic pairs to shuffle, or `size` is no
            multiple of 8.
    """
    if len(synthetic) < 2:
        raise DataError(f"'{synthetic.root}' has {len(synthetic)} pairs; alignment needs 2 or more")
    if size < 8 or size % 8:
        raise DataError(f"size {size} is not a positive multiple of 8, which the segmenter needs")
    network = train_segmenter(*as_tensors(train, size), steps=steps, seed=seed, progress=progress)
    real_image, real_mask = as_tensors(held_out, size)
    image, mask = as_tensors(synthetic, size)
    predicted = predict(network, image)
    order = derangement(len(mask), seed)
    aligned = dice(predicted, mask)
    shuffled = dice(predicted, mask[order])
    return {
        "dice_on_synthetic": round(float(aligned.mean()), 4),
        "dice_on_shuffled": round(float(shuffled.mean()), 4),
        "dice_on_real": round(float(dice(predict(network, real_image), real_mask).mean()), 4),
        "share_above_own_shuffled": round(float((aligned > shuffled).float().mean()), 4),
        "n_synthetic": len(mask),
        "n_real_held_out": len(real_mask),
        "n_real_train": len(train),
        "segmenter": "SmallUNet trained on real pairs only",
        "segmenter_size_px": size,
        "segmenter_steps": steps,
        "seed": seed,
    }


def dice(predicted: Tensor, mask: Tensor) -> Tensor:
    """Dice of boolean maps per image, (B, 1, H, W) each, to (B,); two empty maps score 1."""
    overlap = (predicted & mask).sum((1, 2, 3))
    total = predicted.sum((1, 2, 3)) + mask.sum((1, 2, 3))
    return torch.where(total > 0, 2 * overlap / total.clamp_min(1), 1.0)
