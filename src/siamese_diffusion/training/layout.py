"""In which memory layout a network keeps its convolution weights."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn


def lay_out(module: nn.Module, layout: torch.memory_format = torch.channels_last) -> None:
    """Bring the weights of a module into a layout; by default channels lie innermost."""
    to: Callable[..., object] = module.to  # its stub lacks this form
    to(memory_format=layout)
