"""The forward process, Eq. (1), and its inverse given the noise, used by Eq. (11)."""

from __future__ import annotations

import torch
from torch import Tensor


def scaled_linear_alpha_bar(
    *, beta_start: float = 0.00085, beta_end: float = 0.012, num_timesteps: int = 1000
) -> Tensor:
    """Cumulative products alpha-bar_t of SD's schedule (squared linear ramp), (T,) float32.

    Index 0 is the least noisy step. Computed in float64, as the authors' release does.
    """
    root = torch.linspace(beta_start**0.5, beta_end**0.5, num_timesteps, dtype=torch.float64)
    return torch.cumprod(1 - root**2, dim=0).float()


def add_noise(z0: Tensor, eps: Tensor, alpha_bar_t: Tensor) -> Tensor:
    """Eq. (1): zt = sqrt(alpha_bar_t) z0 + sqrt(1 - alpha_bar_t) eps.

    Args:
        z0: Clean latent, (B, C, h, w).
        eps: Standard normal noise, same shape.
        alpha_bar_t: (B,), each sample's cumulative product.
    """
    a = alpha_bar_t.view(-1, 1, 1, 1)
    return a.sqrt() * z0 + (1 - a).sqrt() * eps


def predict_z0(zt: Tensor, eps: Tensor, alpha_bar_t: Tensor) -> Tensor:
    """Eq. (1) solved for z0; with the true noise it returns the clean latent.

    Args:
        zt: Noisy latent, (B, C, h, w).
        eps: Noise or its prediction, same shape.
        alpha_bar_t: (B,).
    """
    a = alpha_bar_t.view(-1, 1, 1, 1)
    return (zt - (1 - a).sqrt() * eps) / a.sqrt()
