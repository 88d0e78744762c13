"""Sampling written down literally, as the authors' release computes it.

Nothing is shared with the package: whole forward passes of diffusers' stock models, the hint
encoded in every one of them, prompt and empty prompt one after the other. Slow on purpose; it is
what the efficient sampler must equal, and what it is measured beside.

Source: Siamese-Diffusion (CVPR 2025), Sec. 4.1; order of operations of the authors' release.
"""

from __future__ import annotations

import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from torch import Tensor


@torch.no_grad()
def literal_sample(
    unet: UNet2DConditionModel,
    control: ControlNetModel,
    mask: Tensor,
    c_text: Tensor,
    c_empty: Tensor,
    noise: Tensor,
    *,
    alpha_bar: Tensor,
    steps: int,
    guidance_scale: float,
) -> Tensor:
    """DDIM with eta 0 under the mask control, two passes a step.

    Args:
        unet: Stock U-Net.
        control: Stock control branch, hint input included.
        mask: (B, 3, H, W) in {0, 1}; the release has B = 1.
        c_text, c_empty: Embeddings of prompt and empty prompt, (B, L, D).
        noise: z_T, (B, C, h, w).
        alpha_bar: The schedule, (1000,) float32 on the CPU.
        steps: Number of steps; they divide 1000.
        guidance_scale: lambda.
    """
    stride = 1000 // steps
    z = noise
    for i in reversed(range(steps)):
        step = i * stride + 1
        t = torch.full((len(z),), step, device=z.device)
        eps_text = _noise(unet, control, z, t, c_text, mask)
        eps_empty = _noise(unet, control, z, t, c_empty, mask)
        eps = eps_empty + guidance_scale * (eps_text - eps_empty)
        a_t = alpha_bar[step].item()
        a_before = alpha_bar[step - stride if i > 0 else 0].item()
        predicted = (z - (1 - a_t) ** 0.5 * eps) / a_t**0.5
        z = a_before**0.5 * predicted + (1 - a_before) ** 0.5 * eps
    return z


def _noise(
    unet: UNet2DConditionModel,
    control: ControlNetModel,
    z: Tensor,
    t: Tensor,
    context: Tensor,
    mask: Tensor,
) -> Tensor:
    downs, middle = control(z, t, context, mask, return_dict=False)
    prediction = unet(
        z,
        t,
        context,
        down_block_additional_residuals=tuple(downs),
        mid_block_additional_residual=middle,
        return_dict=False,
    )[0]
    assert isinstance(prediction, Tensor)
    return prediction
