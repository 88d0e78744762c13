"""In which memory layout a network keeps its convolution weights."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


def lay_out(module: nn.Module, layout: torch.memory_format = torch.channels_last) -> None:
    """Bring the weights of a module into a layout; by default channels lie innermost."""
    to: Callable[..., object] = module.to  # its stub lacks this form
    to(memory_format=layout)


def follow_layout(optimizer: torch.optim.Optimizer) -> None:
    """Bring an optimizer's moments into the layout of their weights, values unchanged.

    The fused update on a GPU refuses moments whose strides differ from the weight's, as those read
    from a checkpoint do where weights lie channels innermost.
    """
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                moved = torch.empty_like(parameter, dtype=value.dtype)
                state[name] = moved.copy_(value)
