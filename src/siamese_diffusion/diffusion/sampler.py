"""Which solver integrates, and at which timesteps guidance acts; free of torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

SamplerName: TypeAlias = Literal["ddim", "dpm-solver++"]


@dataclass(frozen=True)
class Sampler:
    """A way from noise to a latent beside number of steps and guidance scale.

    Attributes:
        name: `ddim`, the paper's, or `dpm-solver++` (second order, for few steps).
        guidance_interval: Lowest and highest timestep at which guidance acts, both included;
            elsewhere the prompt's branch runs alone, at half the cost. None: everywhere.
    """

    name: SamplerName = "ddim"
    guidance_interval: tuple[int, int] | None = None

    def guides(self, t: int) -> bool:
        """Whether guidance acts at a timestep."""
        if self.guidance_interval is None:
            return True
        low, high = self.guidance_interval
        return low <= t <= high


PAPER = Sampler()
