"""Latents of all images for `siamdiff pretrain`: whitened, scaled to unit variance, on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from siamese_diffusion.core.progress import ProgressBar
from siamese_diffusion.core.weights import store_tensors
from siamese_diffusion.generators.pretraining_tasks import to_model
from siamese_diffusion.models.base import Base
from siamese_diffusion.models.latents import encode_moments
from siamese_diffusion.models.whitening import fold_whitening, whitened_std, whitening


def scaled_latents(
    base: Base,
    train: np.ndarray,
    path: Path,
    device: torch.device,
    *,
    flips: bool,
    whiten: bool,
    quiet: bool = False,
) -> tuple[Tensor, Tensor]:
    """Moments of every image (and its mirror image), scaled to unit variance; kept on disk.

    With `whiten` the autoencoder is changed as well, here and whenever this is called again.
    """
    stored = _stored_latents(path)
    if stored is None:
        mean, std = _moments(base, train, device, flips=flips, quiet=quiet)
        matrix, centre = torch.eye(mean.shape[1]), torch.zeros(mean.shape[1])
        deviation = std.square().mean((0, 2, 3)).sqrt()
        if whiten:
            matrix, centre = whitening(mean)
            deviation = whitened_std(std, matrix)
            mean = torch.einsum("ij,njhw->nihw", matrix, mean - centre.view(1, -1, 1, 1))
            mean, std = mean.contiguous(), deviation.view(1, -1, 1, 1).expand_as(mean).contiguous()
        spread = (mean.var() + std.square().mean()).sqrt()
        stored = {"mean": mean, "std": std, "spread": spread}
        stored |= {"matrix": matrix, "centre": centre, "deviation": deviation}
        store_tensors(path, stored)
    if whiten:
        assert isinstance(base.vae, AutoencoderKL)  # checked before anything was written
        # moments above are in units of the scaling factor, the convolutions before it
        scale = float(base.vae.config["scaling_factor"])
        fold_whitening(
            base.vae, stored["matrix"], stored["centre"] / scale, stored["deviation"] / scale
        )
    # The factor that brings latents to unit variance, SD's 0.18215; it goes with the autoencoder.
    factor = float(base.vae.config["scaling_factor"]) / float(stored["spread"])
    base.vae.register_to_config(scaling_factor=factor)
    return stored["mean"] / stored["spread"], stored["std"] / stored["spread"]


def _moments(
    base: Base, train: np.ndarray, device: torch.device, *, flips: bool, quiet: bool
) -> tuple[Tensor, Tensor]:
    """Means and deviations of all images, then of all mirror images."""
    means, stds = [], []
    mirrored = [False, True] if flips else [False]
    with ProgressBar("latents", len(mirrored) * len(train), enabled=not quiet) as bar:
        for number, mirror in enumerate(mirrored):
            for start in range(0, len(train), 16):
                image = to_model(np.ascontiguousarray(train[start : start + 16]))
                image = image.flip(-1) if mirror else image
                mean, std = encode_moments(base.vae, image.to(device))
                means.append(mean.cpu())
                stds.append(std.cpu())
                bar.advance_to(number * len(train) + min(start + 16, len(train)))
    return torch.cat(means).contiguous(), torch.cat(stds).contiguous()


def _stored_latents(path: Path) -> dict[str, Tensor] | None:
    try:
        stored = load_file(path) if path.exists() else {}
    except SafetensorError:  # torn: computed again
        return None
    names = {"mean", "std", "spread", "matrix", "centre", "deviation"}
    return stored if set(stored) == names else None
