"""DDIM (Song et al., 2021) with eta 0 as one function of a noise predictor."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


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
) -> Tensor:
    """Integrate from noise to a clean latent, deterministically (eta 0).

    Args:
        predict: `predict(zt, t)` gives the noise prediction, (B, C, h, w), for one timestep.
        noise: z_T, (B, C, h, w).
        alpha_bar: The schedule, (T,) float32.
        steps: Number of predictions; the paper takes 50.
        progress: Called with (done, steps) after each.

    Returns:
        z_0 in the latent's scale. The last step lands on alpha_bar[0], as the authors' release.
    """
    times = ddim_timesteps(steps, len(alpha_bar))
    zt = noise
    for i, t in enumerate(times):
        eps = predict(zt, t)
        a = alpha_bar[t]
        a_next = alpha_bar[times[i + 1]] if i + 1 < len(times) else alpha_bar[0]
        z0 = (zt - (1 - a).sqrt() * eps) / a.sqrt()
        zt = a_next.sqrt() * z0 + (1 - a_next).sqrt() * eps
        if progress is not None:
            progress(i + 1, steps)
    return zt
