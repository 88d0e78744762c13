"""DDIM (Song et al., 2021) as one function of a noise predictor."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor

from siamese_diffusion.core.seeding import normal


def ddim_timesteps(steps: int, num_timesteps: int = 1000) -> list[int]:
    """Timesteps from noisy to clean, ending at 1: 981, 961, ..., 1 for 50 steps.

    Raises:
        ValueError: If there are more steps than timesteps, or none.
    """
    if not 1 <= steps <= num_timesteps:
        raise ValueError(f"steps must be between 1 and {num_timesteps}, got {steps}")
    stride = num_timesteps // steps
    times = [i * stride + 1 for i in range(steps)]
    # one step per timestep would run past the end of the schedule
    return [min(t, num_timesteps - 1) for t in reversed(times)]


@torch.no_grad()
def ddim_sample(
    predict: Callable[[Tensor, int], Tensor],
    noise: Tensor,
    alpha_bar: Tensor,
    steps: int = 50,
    *,
    progress: Callable[[int, int], None] | None = None,
    eta: float = 0.0,
) -> Tensor:
    """Integrate from noise to a clean latent, deterministically unless `eta` is positive.

    Args:
        predict: `predict(zt, t)` gives the noise prediction, (B, C, h, w), for one timestep.
        noise: z_T, (B, C, h, w).
        alpha_bar: The schedule, (T,) float32.
        steps: Number of predictions; the paper takes 50.
        progress: Called with (done, steps) after each.
        eta: 0 is deterministic, 1 adds as much noise a step as ancestral sampling. That noise is
            a function of each image's z_T and of the step, so an image does not depend on others.

    Returns:
        z_0 in the latent's scale. The last step lands on alpha_bar[0], as the authors' release.
    """
    times = ddim_timesteps(steps, len(alpha_bar))
    zt = noise
    fresh = fresh_noise(noise) if eta > 0 else None
    for i, t in enumerate(times):
        eps = predict(zt, t)
        a = alpha_bar[t]
        a_next = alpha_bar[times[i + 1]] if i + 1 < len(times) else alpha_bar[0]
        z0 = (zt - (1 - a).sqrt() * eps) / a.sqrt()
        if fresh is None:
            zt = a_next.sqrt() * z0 + (1 - a_next).sqrt() * eps
        else:
            variance = eta**2 * (1 - a_next) / (1 - a) * (1 - a / a_next)
            zt = a_next.sqrt() * z0 + (1 - a_next - variance).sqrt() * eps
            zt = zt + variance.sqrt() * fresh(i)
        if progress is not None:
            progress(i + 1, steps)
    return zt


def fresh_noise(noise: Tensor) -> Callable[[int], Tensor]:
    """Further noise for images that start from `noise`, by step, as a function of each row alone.

    A row's own bytes name its stream: independent of z_T for all purposes, equal for equal z_T.
    """
    seeds = [
        int.from_bytes(hashlib.blake2b(row.numpy().tobytes(), digest_size=8).digest(), "little")
        >> 1
        for row in noise.detach().float().cpu()
    ]

    def draw(step: int) -> Tensor:
        rows = [normal(tuple(noise.shape[1:]), seed, "fresh", step) for seed in seeds]
        return torch.stack(rows).to(noise.device, noise.dtype)

    return draw
