"""The siamese objective: Eq. (5)-(9) and (11)-(13) of the paper, in its order, nothing else.

Symbols, paper -> here:
    z_0, z_t, eps, t, c_t           z0, zt, eps, t, c_text
    c_m, c_i, c_mix                 c_m, c_i, c_mix       tuples, one tensor per U-Net level
    w_i = k / N_iter, w_m, w_c, w_a w_i, w_m, w_c, w_a
    eps^m, eps^mix, eps^m'          eps_m, eps_mix, eps_m_prime
    z'_0, z'_t                      z0_prime, zt_prime
    theta, theta'                   predict(...), predict(..., frozen=True)
    sg[.]                           .detach(), inside the function that needs it
    K_tau, T_tau                    k_tau, t_tau
    L_m, L_i, L_c, L_m'             loss/mask, loss/image, loss/consistency, loss/augment

Eq. (10), the parameter view of the consistency loss, is an explanation and is not computed.
Source: Siamese-Diffusion (CVPR 2025), Sec. 3.2-3.5, and the authors' release where noted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from siamese_diffusion.diffusion.schedule import add_noise, predict_z0
from siamese_diffusion.models.siamese import Controls, Encoded
from siamese_diffusion.objectives.denoising import denoising_loss
from siamese_diffusion.objectives.settings import SiameseSettings


class Siamese(Protocol):
    """What the equations need of a network; see `models.siamese.SiameseNetwork`."""

    def hint(self, picture: Tensor) -> Tensor: ...

    def encode(self, zt: Tensor, t: Tensor, c_text: Tensor) -> Encoded: ...

    def controls(self, zt: Tensor, t: Tensor, c_text: Tensor, hint: Tensor) -> Controls: ...

    def predict(
        self, encoded: Encoded, c_text: Tensor, controls: Controls, *, frozen: bool = False
    ) -> Tensor: ...


def mix_controls(c_i: Controls, c_m: Controls, *, w_i: float, w_m: float) -> Controls:
    """Eq. (5): c_mix = w_i c_i + w_m sg[c_m], level by level.

    Args:
        c_i: Controls of the image, gradient flows (scaled by w_i).
        c_m: Controls of the mask; detached here.
        w_i: k / N_iter, 0 at the start and 1 at the end.
        w_m: 1 in the paper.
    """
    return tuple(w_i * i + w_m * m.detach() for i, m in zip(c_i, c_m, strict=True))


def mask_denoising(eps_m: Tensor, eps: Tensor) -> Tensor:
    """Eq. (7): the denoising loss of Mask-Diffusion; reaches control branch and decoder."""
    return denoising_loss(eps_m, eps)


def image_denoising(eps_mix: Tensor, eps: Tensor) -> Tensor:
    """Eq. (8): the denoising loss of Image-Diffusion, predicted with theta' (a copy of theta)."""
    return denoising_loss(eps_mix, eps)


def noise_consistency(eps_m: Tensor, eps_mix: Tensor, *, w_c: float) -> Tensor:
    """Eq. (9): pull the mask-only prediction towards the better-informed one.

    The mixed prediction is only a target: it is detached here rather than by the caller, so
    gradient can reach the mask-only pass alone, whoever calls this.

    Args:
        eps_m: Prediction under the mask control, (B, C, h, w); gradient flows.
        eps_mix: Prediction under image and mask controls, same shape; no gradient.
        w_c: Steering strength, 1 in the paper; studied in Table 6.

    Returns:
        Scalar float32, mean over batch and elements.

    Raises:
        ValueError: If the shapes differ or w_c is negative.
    """
    if eps_m.shape != eps_mix.shape:
        raise ValueError(f"predictions differ in shape: {eps_m.shape} and {eps_mix.shape}")
    if w_c < 0:
        raise ValueError(f"w_c must not be negative, got {w_c}")
    return w_c * denoising_loss(eps_m, eps_mix.detach())


def one_step_estimate(zt: Tensor, eps_mix: Tensor, alpha_bar_t: Tensor) -> Tensor:
    """Eq. (11): z0' = (zt - sqrt(1 - alpha_bar_t) sg[eps_mix]) / sqrt(alpha_bar_t)."""
    return predict_z0(zt, eps_mix.detach(), alpha_bar_t)


def augmented_denoising(eps_m_prime: Tensor, eps: Tensor, *, batch_size: int) -> Tensor:
    """Eq. (12) on the samples with w_a = 1; the others count in the denominator with zero.

    Args:
        eps_m_prime: Predictions on z't under the mask control, (G, C, h, w), G gated samples.
        eps: Their true noise, the one of Eq. (7), same shape.
        batch_size: B, the number of samples of the whole batch.
    """
    return denoising_loss(eps_m_prime, eps) * (len(eps) / batch_size)


def augment_weight(t: Tensor, *, k: int, k_tau: float, t_tau: int) -> Tensor:
    """Eq. (13): w_a = 1 if k > K_tau and t < T_tau, else 0, per sample, (B,) bool.

    `k` is the iteration counted from 0, as in the release.
    """
    return (t < t_tau) if k > k_tau else torch.zeros_like(t, dtype=torch.bool)


def siamese_terms(
    network: Siamese,
    batch: Mapping[str, Tensor],
    *,
    k: int,
    n_iter: int,
    settings: SiameseSettings,
) -> dict[str, Tensor]:
    """Eq. (6): the terms whose sum is the loss, L = L_m + L_i + L_c + L_m'.

    The frozen encoder runs once for both predictions, each control is computed once, the mixed
    prediction runs on the live weights with their gradients cut, and Eq. (12) is computed only
    for the samples that count in it.

    Args:
        network: Control branch and U-Net.
        batch: `z0`, `eps` (B, C, h, w); `t` (B,) long, best on the CPU, where Eq. (13) is decided
            without waiting for the device; `alpha_bar_t` (B,); `c_text` (B, L, D);
            `mask` (B, 3, H, W) in {0, 1}; `image` (B, 3, H, W) in [0, 1], not needed when only
            Mask-Diffusion is trained.
        k: Iteration, from 0.
        n_iter: Total number of iterations.
        settings: Weights and switches.

    Returns:
        Scalars: `loss/mask` always; `loss/image`, `loss/consistency`, `loss/augment` where they
        are on; `weight/image` and `weight/augment` (share of samples with w_a = 1) for the log.
    """
    z0, eps, t, c_text = batch["z0"], batch["eps"], batch["t"], batch["c_text"]
    alpha_bar_t = batch["alpha_bar_t"]
    zt = add_noise(z0, eps, alpha_bar_t)
    encoded = network.encode(zt, t, c_text)
    hint_m = network.hint(batch["mask"])
    c_m = network.controls(zt, t, c_text, hint_m)
    eps_m = network.predict(encoded, c_text, c_m)
    terms = {"loss/mask": mask_denoising(eps_m, eps)}

    w_a = augment_weight(
        t,
        k=k,
        k_tau=settings.augment_start_fraction * n_iter,
        t_tau=settings.augment_below_timestep,
    )
    gated = settings.online_augment and bool(w_a.any())
    w_i = k / n_iter
    if settings.image_pass or settings.consistency_weight > 0 or gated:
        # L_i is the only term that sends gradient through the image; without it none is kept.
        with torch.set_grad_enabled(settings.image_pass and torch.is_grad_enabled()):
            c_i = network.controls(zt, t, c_text, network.hint(batch["image"]))
            c_mix = mix_controls(c_i, c_m, w_i=w_i, w_m=settings.mask_weight)
            eps_mix = network.predict(
                encoded, c_text, c_mix, frozen=not settings.image_loss_trains_decoder
            )
        if settings.image_pass:
            terms["loss/image"] = image_denoising(eps_mix, eps)
        if settings.consistency_weight > 0:
            terms["loss/consistency"] = noise_consistency(
                eps_m, eps_mix, w_c=settings.consistency_weight
            )
    # Names must not depend on the draw of a micro-batch: they are averaged one by one.
    if settings.image_pass or settings.consistency_weight > 0 or settings.online_augment:
        terms["weight/image"] = zt.new_tensor(w_i)
    if settings.online_augment:
        terms["loss/augment"] = zt.new_zeros(())
        terms["weight/augment"] = zt.new_tensor(float(w_a.float().mean()))
    if gated:
        rows = w_a.nonzero().squeeze(1)
        z0_prime = one_step_estimate(zt[rows], eps_mix[rows], alpha_bar_t[rows])
        zt_prime = add_noise(z0_prime, eps[rows], alpha_bar_t[rows])
        tr, cr = t[rows], c_text[rows]
        c_m_prime = network.controls(zt_prime, tr, cr, hint_m[rows])
        eps_m_prime = network.predict(network.encode(zt_prime, tr, cr), cr, c_m_prime)
        terms["loss/augment"] = augmented_denoising(eps_m_prime, eps[rows], batch_size=len(t))
    return terms
