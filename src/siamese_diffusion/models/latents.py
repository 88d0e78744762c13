"""Images to latents and back, for both kinds of autoencoder."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from siamese_diffusion.models.base import Autoencoder


@torch.no_grad()
def encode_moments(vae: Autoencoder, images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the scaled latent posterior, each (B, C, H/8, W/8).

    Keeping both allows a fresh posterior sample at every step without the encoder. A tiny
    autoencoder is deterministic: its deviation is zero.

    Args:
        images: (B, 3, H, W) in [-1, 1].
    """
    scale = float(vae.config["scaling_factor"])
    encoded = vae.encode(images)
    if isinstance(vae, AutoencoderKL):
        posterior = encoded.latent_dist
        return posterior.mean * scale, posterior.std * scale
    return encoded.latents * scale, torch.zeros_like(encoded.latents)


@torch.no_grad()
def decode(vae: Autoencoder, z0: Tensor) -> Tensor:
    """Scaled latents (B, C, h, w) to images (B, 3, 8h, 8w), clamped to [-1, 1]."""
    image: Tensor = vae.decode(z0 / float(vae.config["scaling_factor"])).sample
    return image.clamp(-1, 1)


def to_uint8(images: Tensor) -> Tensor:
    """[-1, 1] to 0..255, rounded; (B, 3, H, W) to (B, H, W, 3) uint8 on the CPU."""
    levels = ((images.float() + 1) * 127.5).round().clamp(0, 255)
    return levels.to(torch.uint8).permute(0, 2, 3, 1).cpu()
