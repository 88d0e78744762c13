"""ArSDM's refinement: a frozen segmenter should find the mask in the images.

The authors use PraNet, trained on the same pairs. Here it is a small U-Net that `prepare` trains on
the run's own pairs before the first step, from the run's seed, and keeps beside the latents.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from siamese_diffusion.core.artifacts import make_folder, text_sha256
from siamese_diffusion.core.seeding import derive_seed
from siamese_diffusion.data.order import sample_order
from siamese_diffusion.generators.tensors import PairTensors
from siamese_diffusion.models.small_unet import SmallUNet, segmentation_loss
from siamese_diffusion.objectives.refinement import structure_loss

SIZE = 64  # pixels at which it works
STEPS, _BATCH = 300, 16
_WINDOW = 5  # of the structure loss: 31 at 352 px, at this size


def frozen_segmenter(
    pairs: PairTensors, *, seed: int, cache: Path, steps: int = STEPS
) -> SmallUNet:
    """Train on real pairs, or load what an earlier start of the same run trained."""
    key = text_sha256(f"{_identity(pairs)} {seed} {steps}")[:24]
    path = cache / f"segmenter-{key}.safetensors"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "segmenter"))
        network = SmallUNet()
    if path.exists():
        network.load_state_dict(load_file(path))
    else:
        _train(network, pairs, seed=seed, steps=steps)
        make_folder(cache)
        temporary = cache / f".{path.name}.tmp"
        save_file(network.state_dict(), temporary)
        temporary.replace(path)
    return network.requires_grad_(False).eval()


def refinement_loss(segmenter: SmallUNet, images: Tensor, mask: Tensor) -> Tensor:
    """Structure loss of images (B, 3, H, W) in [-1, 1] against their masks, (B,)."""
    small = F.interpolate(images, size=(SIZE, SIZE), mode="bilinear", antialias=True)
    target = F.interpolate(mask[:, :1], size=(SIZE, SIZE), mode="nearest")
    return structure_loss(segmenter(small), target, window=_WINDOW)


def _train(network: SmallUNet, pairs: PairTensors, *, seed: int, steps: int) -> None:
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=steps)
    for step in range(steps):
        rows = sample_order(seed, step, range(_BATCH), n=len(pairs), batch_size=_BATCH)
        image = pairs.image[rows].float() / 127.5 - 1
        image = F.interpolate(image, size=(SIZE, SIZE), mode="bilinear", antialias=True)
        mask = (pairs.mask[rows] > 127).float().unsqueeze(1)
        mask = F.interpolate(mask, size=(SIZE, SIZE), mode="nearest")
        axes = [axis for bit, axis in ((1, -1), (2, -2)) if derive_seed(seed, "flip", step) & bit]
        loss = segmentation_loss(network(image.flip(axes)), mask.flip(axes))
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()


def _identity(pairs: PairTensors) -> str:
    """Hash of the pixels."""
    digest = hashlib.sha256()
    for tensor in (pairs.image, pairs.mask):
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
