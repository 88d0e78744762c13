"""What stands in a base's place for generators that work on pixels and read no prompt.

A generator diffuses in a `Space`: the latents of a base, or the pixels themselves. The functions
here are all that training and sampling need to know of the difference.
"""

from __future__ import annotations

from typing import TypeAlias

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from siamese_diffusion.core.artifacts import text_sha256
from siamese_diffusion.models.base import LATENT_FACTOR, Base
from siamese_diffusion.models.latents import decode
from siamese_diffusion.models.scheduler import SD_SCHEDULE

CHANNELS = 3


class PixelSpace:
    """Images in [-1, 1] under a noise schedule; no autoencoder, no text, nothing to load.

    Args:
        beta_start: First beta of the squared linear ramp.
        beta_end: Its last one.

    Attributes:
        sha256: Identity, for run folders; there are no weights.
    """

    reference = lasting_reference = "none"
    kind = "pixels"
    path = None

    def __init__(self, *, beta_start: float = 0.00085, beta_end: float = 0.012) -> None:
        betas = {"beta_start": beta_start, "beta_end": beta_end}
        self.scheduler = DDIMScheduler(**{**SD_SCHEDULE, **betas})
        self.sha256 = text_sha256(f"pixels {beta_start} {beta_end}")

    def embed(self, prompts: list[str]) -> Tensor:
        """Nothing, in the shape of prompt embeddings: (P, 1, 1) of zeros."""
        return torch.zeros(len(prompts), 1, 1)


Space: TypeAlias = Base | PixelSpace


def sample_shape(space: Space, size: int) -> tuple[int, int, int]:
    """Shape of what is diffused for one image of `size` pixels, (C, h, w)."""
    if isinstance(space, PixelSpace):
        return CHANNELS, size, size
    side = size // LATENT_FACTOR
    return int(space.unet.config["in_channels"]), side, side


def to_images(space: Space, z0: Tensor) -> Tensor:
    """Clean samples (B, C, h, w) to images (B, 3, H, W), clamped to [-1, 1]."""
    return z0.clamp(-1, 1) if isinstance(space, PixelSpace) else decode(space.vae, z0)


def place_decoder(space: Space, device: torch.device) -> None:
    """Bring what `to_images` runs to a device."""
    if not isinstance(space, PixelSpace):
        space.vae.to(device=device)
