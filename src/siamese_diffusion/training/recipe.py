"""What a task may have of its own besides batches: optimizer, learning rate, state to keep."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn


@runtime_checkable
class OwnRecipe(Protocol):
    """A task with this pair of methods replaces the loop's optimizer and learning rate.

    Groups of the optimizer may carry `lr_scale`, a factor on the rate.
    """

    def build_optimizer(self) -> torch.optim.Optimizer:
        """An optimizer over the trained parameters."""
        ...

    def learning_rate(self, k: int) -> float:
        """Rate at iteration `k` (from 0)."""
        ...


def buffers(objective: nn.Module) -> dict[str, Tensor]:
    """What a network keeps besides parameters, such as the statistics of BatchNorm.

    The names carry a prefix that no parameter has, so that both fit into one file.
    """
    return {f"buffer/{name}": tensor for name, tensor in objective.named_buffers()}
