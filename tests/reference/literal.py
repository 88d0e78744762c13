"""One training step written down literally, as the authors' release computes it, and a toy problem.

Nothing is shared with the package: whole forward passes of diffusers' stock models, `copy.deepcopy`
of U-Net and control branch at every step, the mask control computed twice, the frozen encoder three
times, and Eq. (12) on the whole batch with w_a as a factor. Slow on purpose; it is what the
efficient step must equal.

Source: Siamese-Diffusion (CVPR 2025), Sec. 3.2-3.5; order of operations of the authors' release.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from torch import Tensor, nn


def literal_terms(
    unet: UNet2DConditionModel,
    control: ControlNetModel,
    batch: Mapping[str, Tensor],
    *,
    k: int,
    n_iter: int,
    w_m: float = 1.0,
    w_c: float = 1.0,
    k_tau: float | None = None,
    t_tau: int = 200,
    image_loss_trains_decoder: bool = False,
) -> dict[str, Tensor]:
    """The four terms of Eq. (6).

    Args:
        unet: Stock U-Net; its encoder must not require gradient.
        control: Stock control branch, hint input included.
        batch: As `siamese_terms` takes it; `t` may lie on the CPU when the rest is on "meta".
        k: Iteration, from 0.
        n_iter: Total number of iterations.
        w_m: Weight of the mask control in Eq. (5).
        w_c: Weight of Eq. (9).
        k_tau: K_tau of Eq. (13); n_iter / 3 if None.
        t_tau: T_tau of Eq. (13), exclusive.
        image_loss_trains_decoder: Predict eps_mix with the live U-Net instead of a copy.
    """
    z0, eps, c_text = batch["z0"], batch["eps"], batch["c_text"]
    mask, image = batch["mask"], batch["image"]
    t = batch["t"].to(z0.device)
    alpha_bar = batch["alpha_bar_t"][:, None, None, None]

    # Eq. (1), and Mask-Diffusion, Eq. (7)
    zt = torch.sqrt(alpha_bar) * z0 + torch.sqrt(1 - alpha_bar) * eps
    eps_m = _noise(unet, zt, t, c_text, _controls(control, zt, t, c_text, mask))
    loss_m = ((eps_m - eps) ** 2).mean(dim=(1, 2, 3))

    # Image-Diffusion, Eq. (5) and (8): c_i from the live branch, sg[c_m] and theta' from copies
    control_copy = copy.deepcopy(control).requires_grad_(False)
    unet_copy = unet if image_loss_trains_decoder else copy.deepcopy(unet)
    c_i = _controls(control, zt, t, c_text, image)
    with torch.no_grad():
        c_m = _controls(control_copy, zt, t, c_text, mask)
    c_mix = [w_m * m.detach() + (k / n_iter) * i for m, i in zip(c_m, c_i, strict=True)]
    eps_mix = _noise(unet_copy, zt, t, c_text, c_mix)
    loss_i = ((eps_mix - eps) ** 2).mean(dim=(1, 2, 3))

    # Eq. (9)
    loss_c = w_c * ((eps_m - eps_mix.detach()) ** 2).mean(dim=(1, 2, 3))

    # Eq. (11), (12) and (13)
    loss_m_prime = torch.zeros_like(loss_m)
    w_a = (batch["t"] < t_tau).float()
    if k > (n_iter / 3 if k_tau is None else k_tau) and w_a.any():
        z0_prime = (zt - torch.sqrt(1 - alpha_bar) * eps_mix) / torch.sqrt(alpha_bar)
        zt_prime = torch.sqrt(alpha_bar) * z0_prime + torch.sqrt(1 - alpha_bar) * eps
        zt_prime = zt_prime.detach()
        c_m_prime = _controls(control, zt_prime, t, c_text, mask)
        eps_m_prime = _noise(unet, zt_prime, t, c_text, c_m_prime)
        squares = ((eps_m_prime - eps) ** 2).mean(dim=(1, 2, 3))
        loss_m_prime = w_a.to(squares.device) * squares

    return {
        "loss/mask": loss_m.mean(),
        "loss/image": loss_i.mean(),
        "loss/consistency": loss_c.mean(),
        "loss/augment": loss_m_prime.mean(),
    }


def _controls(
    control: ControlNetModel, zt: Tensor, t: Tensor, c_text: Tensor, picture: Tensor
) -> list[Tensor]:
    downs, middle = control(zt, t, c_text, picture, return_dict=False)
    return [*downs, middle]


def _noise(
    unet: UNet2DConditionModel, zt: Tensor, t: Tensor, c_text: Tensor, controls: list[Tensor]
) -> Tensor:
    prediction = unet(
        zt,
        t,
        c_text,
        down_block_additional_residuals=tuple(controls[:-1]),
        mid_block_additional_residual=controls[-1],
        return_dict=False,
    )[0]
    assert isinstance(prediction, Tensor)
    return prediction


def toy_unet(seed: int = 0) -> UNet2DConditionModel:
    """The classes and the block order of Stable Diffusion 1.5 at widths 16 and 32."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return UNet2DConditionModel(
            sample_size=4,
            block_out_channels=(16, 32),
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            layers_per_block=1,
            attention_head_dim=2,
            cross_attention_dim=8,
            norm_num_groups=8,
        )


def disturb(module: nn.Module, *, seed: int = 1, scale: float = 0.05) -> None:
    """Move every parameter off its initial value, so that no zero convolution hides an error."""
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            step = torch.randn(parameter.shape, generator=noise).to(parameter.device)
            parameter.add_(step, alpha=scale)


def toy_batch(t: list[int], *, seed: int = 2, latent: int = 4) -> dict[str, Tensor]:
    """One sample per timestep; latents of `latent` pixels, pictures eight times as large."""
    noise = torch.Generator().manual_seed(seed)
    size, n = 8 * latent, len(t)
    root = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64)
    alpha_bar = torch.cumprod(1 - root**2, 0).float()
    disc = (torch.rand(n, 1, size, size, generator=noise) > 0.7).float()
    return {
        "z0": torch.randn(n, 4, latent, latent, generator=noise),
        "eps": torch.randn(n, 4, latent, latent, generator=noise),
        "t": torch.tensor(t),
        "alpha_bar_t": alpha_bar[torch.tensor(t)],
        "c_text": torch.randn(n, 5, 8, generator=noise),
        "mask": disc.expand(n, 3, size, size).contiguous(),
        "image": torch.rand(n, 3, size, size, generator=noise),
    }
