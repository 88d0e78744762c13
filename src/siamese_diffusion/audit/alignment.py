"""Do synthetic images show their masks? Asked of a segmenter that saw real pairs only.

Its Dice on synthetic pairs is read between two anchors from the same run: real pairs it did not
see (what is attainable), and the synthetic images with each other's masks (what chance and the
habits of lesions give).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from siamese_diffusion.audit.small_unet import SmallUNet, segmentation_loss
from siamese_diffusion.core.errors import DataError
from siamese_diffusion.core.seeding import derive_seed
from siamese_diffusion.data.order import sample_order
from siamese_diffusion.data.pairs import PairFolder, load_arrays

_BATCH = 16


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
    network = _train(*_tensors(train, size), steps=steps, seed=seed, progress=progress)
    real_image, real_mask = _tensors(held_out, size)
    image, mask = _tensors(synthetic, size)
    predicted = _predict(network, image)
    order = _derangement(len(mask), seed)
    aligned = dice(predicted, mask)
    shuffled = dice(predicted, mask[order])
    return {
        "dice_on_synthetic": round(float(aligned.mean()), 4),
        "dice_on_shuffled": round(float(shuffled.mean()), 4),
        "dice_on_real": round(float(dice(_predict(network, real_image), real_mask).mean()), 4),
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


def _tensors(folder: PairFolder, size: int) -> tuple[Tensor, Tensor]:
    images, masks = load_arrays(folder, size)
    assert images is not None and masks is not None
    image = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
    return image, torch.from_numpy(masks > 127).unsqueeze(1)


def _train(
    image: Tensor,
    mask: Tensor,
    *,
    steps: int,
    seed: int,
    progress: Callable[[int, int], None] | None,
) -> SmallUNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = SmallUNet()
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=steps)
    for step in range(steps):
        rows = sample_order(seed, step, range(_BATCH), n=len(image), batch_size=_BATCH)
        flips = derive_seed(seed, "flip", step)
        axes = [axis for bit, axis in ((1, -1), (2, -2)) if flips & bit]
        x, y = image[rows], mask[rows].float()
        loss = segmentation_loss(network(x.flip(axes)), y.flip(axes))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        if progress is not None:
            progress(step + 1, steps)
    return network.eval()


@torch.no_grad()
def _predict(network: SmallUNet, image: Tensor) -> Tensor:
    return torch.cat([network(part) > 0 for part in torch.split(image, 32)])


def _derangement(n: int, seed: int) -> list[int]:
    """A seeded order in which no mask keeps its place: a random cycle."""
    cycle = np.random.default_rng(derive_seed(seed, "shuffle")).permutation(n)
    order = [0] * n
    for here, there in zip(cycle, np.roll(cycle, 1), strict=True):
        order[int(here)] = int(there)
    return order
