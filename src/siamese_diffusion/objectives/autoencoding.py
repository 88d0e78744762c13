"""The loss of the small autoencoder that `siamdiff pretrain` trains.

No perceptual or adversarial term: a base must be trainable offline, from images alone.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def reconstruction_loss(reconstruction: Tensor, image: Tensor) -> Tensor:
    """Mean absolute error, which keeps edges sharper than the squared one; images in [-1, 1]."""
    return F.l1_loss(reconstruction.float(), image.float())


def edge_loss(reconstruction: Tensor, image: Tensor) -> Tensor:
    """Mean absolute error of horizontal and vertical differences: vessels, folds, outlines."""
    r, x = reconstruction.float(), image.float()
    rows = F.l1_loss(r[..., 1:, :] - r[..., :-1, :], x[..., 1:, :] - x[..., :-1, :])
    columns = F.l1_loss(r[..., 1:] - r[..., :-1], x[..., 1:] - x[..., :-1])
    return rows + columns


def posterior_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL divergence of the latent posterior from a standard normal, mean over elements."""
    mean, log_variance = mean.float(), log_variance.float()
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()


def psnr(reconstruction: Tensor, image: Tensor) -> Tensor:
    """Peak signal-to-noise ratio per image in dB, (B,); images in [-1, 1], so the peak is 2."""
    error = (reconstruction.float() - image.float()).square().flatten(1).mean(1)
    return 10 * (4.0 / error.clamp_min(1e-12)).log10()
