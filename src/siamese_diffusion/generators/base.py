"""What a generator is: config, assembly, loss terms, and how it samples.

Trainer, checkpoints, logs, bulk sampling, manifest and seeds are inherited by whatever fits here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn

from siamese_diffusion.generators.settings import FitSettings
from siamese_diffusion.models.base import Base


class Generator(Protocol):
    """One method, assembled on a base.

    Attributes:
        Settings: Class of its run settings; the table's name is its `generator` field.
        objective: `objective(step, batch)` gives named scalar terms; see `training.trainer.Task`.
        modules: Its trained networks by name; each is one weights file of the run.
        needs_images: Whether its batches carry the images.
    """

    Settings: ClassVar[type[FitSettings]]
    objective: nn.Module
    needs_images: bool

    @classmethod
    def build(cls, settings: FitSettings, base: Base) -> Generator:
        """Assemble for training or sampling; fresh weights depend on the seed alone."""
        ...

    @property
    def modules(self) -> Mapping[str, nn.Module]: ...

    def trained_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Names and parameters that training updates, in a fixed order."""
        ...

    def validation_loss(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Squared error of the sampling-time prediction per sample, (B,)."""
        ...

    def sample_latents(
        self,
        mask: Tensor,
        c_text: Tensor,
        c_empty: Tensor,
        noise: Tensor,
        *,
        steps: int,
        guidance_scale: float,
    ) -> Tensor:
        """Latents (B, C, h, w) for masks (B, 3, H, W) in {0, 1}; no image can be given."""
        ...


def move(generator: Generator, device: torch.device, dtype: torch.dtype | None = None) -> None:
    """Bring all networks of a generator to a device."""
    generator.objective.to(device=device, dtype=dtype)
