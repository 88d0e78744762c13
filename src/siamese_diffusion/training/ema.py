"""Exponential moving average of the trained weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class MovingAverage:
    """Float32 averages of parameters, by name.

    The decay rises as (1 + k) / (10 + k) up to `decay`, so that short runs are not averages of
    the start.
    """

    def __init__(self, parameters: Iterable[tuple[str, nn.Parameter]], decay: float) -> None:
        self.decay = decay
        self._live = dict(parameters)
        self.average = {name: p.detach().clone() for name, p in self._live.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Fold in the live weights after update number `step` (counted from 1)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        averages = list(self.average.values())
        live = [self._live[name].detach() for name in self.average]
        torch._foreach_lerp_(averages, live, 1 - decay)

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        """Restore averages saved by name."""
        for name, average in self.average.items():
            average.copy_(state[name])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Let the network run with the averages inside the block."""
        saved = {name: p.detach().clone() for name, p in self._live.items()}
        self._swap(self.average)
        try:
            yield
        finally:
            self._swap(saved)

    def finish(self) -> None:
        """Leave the averages in the network for good."""
        self._swap(self.average)

    @torch.no_grad()
    def _swap(self, values: Mapping[str, Tensor]) -> None:
        for name, parameter in self._live.items():
            parameter.copy_(values[name])
