"""DPM-Solver++ (Lu et al., 2022), second-order multistep, as one function of a noise predictor."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from siamese_diffusion.diffusion.ddim import ddim_sample
from siamese_diffusion.diffusion.sampler import Sampler


def dpm_timesteps(steps: int, num_timesteps: int = 1000) -> list[int]:
    """Timesteps from noisy to clean, evenly spaced from the last one: 999, 949, ..., 50 for 20.

    Raises:
        ValueError: If there are as many steps as timesteps, or none.
    """
    if not 1 <= steps < num_timesteps:
        raise ValueError(f"steps must be between 1 and {num_timesteps - 1}, got {steps}")
    times = torch.linspace(0, num_timesteps - 1, steps + 1, dtype=torch.float64).round()
    return [int(t) for t in reversed(times.tolist()[1:])]


@torch.no_grad()
def dpm_sample(
    predict: Callable[[Tensor, int], Tensor], noise: Tensor, alpha_bar: Tensor, steps: int
) -> Tensor:
    """Integrate from noise to a clean latent, deterministically, one prediction a step.

    The last step is of first order and ends without noise, as diffusers'
    `DPMSolverMultistepScheduler` does by default.

    Args:
        predict: `predict(zt, t)` gives the noise prediction, (B, C, h, w), for one timestep.
        noise: z_T, (B, C, h, w).
        alpha_bar: The schedule, (T,) float32.
        steps: Number of predictions; about 20 are meant.

    Returns:
        z_0 in the latent's scale.
    """
    times = dpm_timesteps(steps, len(alpha_bar))
    exact = alpha_bar.double()  # lambda is a logarithm of a ratio
    alpha, sigma = exact.sqrt(), (1 - exact).sqrt()
    lambda_ = alpha.log() - sigma.log()
    zt, before = noise, None
    for i, t in enumerate(times):
        z0 = (zt - sigma[t] * predict(zt, t)) / alpha[t]
        if i + 1 == steps:
            return z0
        s = times[i + 1]
        h = lambda_[s] - lambda_[t]
        direction = z0
        if before is not None:
            ratio = (lambda_[t] - lambda_[times[i - 1]]) / h
            direction = z0 + (z0 - before) / (2 * ratio)
        zt = sigma[s] / sigma[t] * zt - alpha[s] * torch.expm1(-h) * direction
        before = z0
    raise AssertionError("a schedule has a last step")


def integrate(
    sampler: Sampler,
    predict: Callable[[Tensor, int], Tensor],
    noise: Tensor,
    alpha_bar: Tensor,
    steps: int,
) -> Tensor:
    """z_0 by the solver that a sampler names; arguments as of `dpm_sample`."""
    solve = dpm_sample if sampler.name == "dpm-solver++" else ddim_sample
    return solve(predict, noise, alpha_bar, steps)
