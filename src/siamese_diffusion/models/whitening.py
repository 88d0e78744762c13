"""Latents of equal spread: a linear change of their channels, folded into the autoencoder.

An autoencoder trained for reconstruction alone spends most variance on colour and light; channels
with the detail may hold a hundredth of it, which a denoiser sees last and samples blur. Whitening
costs nothing and changes no reconstruction: its matrix goes into the convolution after the
encoder, the inverse into the one before the decoder.
"""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL
from torch import Tensor

# Channels of less than this share of the largest variance are noise rather than detail.
_LEAST = 1e-4


def whitening(mean: Tensor) -> tuple[Tensor, Tensor]:
    """Matrix and centre that give the channels of latents unit covariance.

    Args:
        mean: Posterior means, (N, C, h, w).

    Returns:
        A, (C, C), and mu, (C,): A (z - mu) has covariance one (ZCA, so that channels keep their
        order and sign).
    """
    flat = mean.double().permute(1, 0, 2, 3).flatten(1)  # (C, N h w)
    values, vectors = torch.linalg.eigh(torch.cov(flat))
    roots = values.clamp_min(_LEAST * float(values.max())).rsqrt()
    matrix = (vectors * roots) @ vectors.T
    return matrix.float(), flat.mean(1).float()


def whitened_std(std: Tensor, matrix: Tensor) -> Tensor:
    """Posterior deviation of each channel after the change, (C,): one value for all pixels.

    Args:
        std: Before, (N, C, h, w).
        matrix: A, (C, C).
    """
    variance = std.square().mean((0, 2, 3))
    return (matrix.square() @ variance).sqrt()


@torch.no_grad()
def fold_whitening(vae: AutoencoderKL, matrix: Tensor, centre: Tensor, std: Tensor) -> None:
    """Let an autoencoder encode to A (z - mu) and decode from there.

    Args:
        vae: With quant and post-quant convolutions, as Stable Diffusion's; changed in place.
        matrix: A, (C, C).
        centre: mu, (C,), in latents before the scaling factor.
        std: What the posterior's deviation shall be, (C,).
    """
    before, after = vae.quant_conv, vae.post_quant_conv
    assert before is not None and after is not None
    channels = len(centre)
    a, mu = matrix.to(before.weight), centre.to(before.weight)
    weight, bias = before.weight[:, :, 0, 0], before.bias
    weight[:channels] = a @ weight[:channels]
    bias[:channels] = a @ (bias[:channels] - mu)
    weight[channels:] = 0
    bias[channels:] = 2 * std.to(bias).clamp_min(1e-6).log()
    out, inverse = after.weight[:, :, 0, 0], torch.linalg.inv(matrix.double()).to(after.weight)
    after.bias.add_(out @ mu)
    out.copy_(out @ inverse)
