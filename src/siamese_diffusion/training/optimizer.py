"""How the weights move: AdamW and its learning rate."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import nn

from siamese_diffusion.core.errors import ConfigError
from siamese_diffusion.training.settings import TrainSettings


def learning_rate(settings: TrainSettings, k: int) -> float:
    """Rate at iteration `k` (from 0): linear warm-up, then constant or cosine to zero."""
    if k < settings.warmup_steps:
        return settings.learning_rate * (k + 1) / settings.warmup_steps
    if settings.decay == "constant":
        return settings.learning_rate
    span = max(1, settings.steps - settings.warmup_steps)
    return (
        settings.learning_rate * 0.5 * (1 + math.cos(math.pi * (k - settings.warmup_steps) / span))
    )


def build_optimizer(
    settings: TrainSettings, parameters: Sequence[nn.Parameter]
) -> torch.optim.Optimizer:
    """AdamW, fused where torch has it, or bitsandbytes' 8-bit AdamW.

    Raises:
        ConfigError: If 8-bit AdamW is asked for without bitsandbytes.
    """
    rates = {
        "lr": settings.learning_rate,
        "betas": settings.betas,
        "eps": settings.epsilon,
        "weight_decay": settings.weight_decay,
    }
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(parameters, fused=True, **rates)  # type: ignore[arg-type]
    return adamw8bit()(parameters, **rates)


def adamw8bit() -> Callable[..., torch.optim.Optimizer]:
    """The class of bitsandbytes' 8-bit AdamW.

    Raises:
        ConfigError: If bitsandbytes does not import.
    """
    try:
        from bitsandbytes.optim import AdamW8bit
    except (ImportError, RuntimeError, OSError) as error:
        raise ConfigError(
            f"train.optimizer=adamw8bit needs bitsandbytes, which does not import ({error})",
            hint="pip install 'siamese-diffusion[8bit]' on a GPU machine, or use adamw",
        ) from error
    found: Callable[..., torch.optim.Optimizer] = AdamW8bit
    return found
