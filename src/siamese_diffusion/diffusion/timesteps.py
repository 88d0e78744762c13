"""Densities from which training draws its timestep."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor

TimestepSampling: TypeAlias = Literal["uniform", "cubic"]


def draw_timestep(
    draws: torch.Generator, num_timesteps: int, density: TimestepSampling = "uniform"
) -> Tensor:
    """One timestep of 0..T-1, () long.

    Args:
        draws: The sample's own stream.
        num_timesteps: T.
        density: `uniform`, or `cubic`: floor((1 - u^3) T) with u uniform in [0, 1), which favours
            noisy steps (mean 0.75 T), where structure is decided.

    Source: T2I-Adapter (AAAI 2024), cubic sampling.
    """
    if density == "uniform":
        return torch.randint(num_timesteps, (), generator=draws)
    u = torch.rand((), generator=draws, dtype=torch.float64)
    return ((1 - u**3) * num_timesteps).long().clamp(0, num_timesteps - 1)
