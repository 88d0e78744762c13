"""What a generator is: settings, assembly, loss terms, and how it samples.

Trainer, checkpoints, logs, bulk sampling, manifest and seeds are inherited by whatever fits here.
`denoiser.Denoiser` does most of it for a method that predicts noise under a condition.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar, Literal, Protocol, TypeAlias

import torch
from torch import Tensor, nn

from siamese_diffusion.generators.settings import FitSettings
from siamese_diffusion.models.pixels import PixelSpace, Space

Control: TypeAlias = Literal["mask", "mask+image"]


class Defaults:
    """What most generators have in common; inherit it and say only what differs.

    Attributes:
        control: What an image is sampled from. Only `sample_from_pairs` of a generator that says
            "mask+image" is ever given images.
        nature: What its images are, for manifest and PNG text: "synthetic", or how near to real
            ones they are.
    """

    control: ClassVar[Control] = "mask"
    nature: ClassVar[str] = "synthetic"

    @classmethod
    def own_space(cls, settings: FitSettings) -> PixelSpace | None:
        """What it works on instead of a base; None asks for a base."""
        return None


class Generator(Protocol):
    """One method, assembled on a base or in a space of its own.

    Attributes:
        Settings: Class of its run settings; the table's name is its `generator` field.
        objective: `objective(step, batch)` gives named scalar terms; see `training.trainer.Task`.
        modules: Its trained networks by name; each is one weights file of the run.
        needs_images: Whether its batches carry the images.
        control, nature: See `Defaults`.
    """

    Settings: ClassVar[type[FitSettings]]
    control: ClassVar[Control]
    nature: ClassVar[str]
    objective: nn.Module
    needs_images: bool

    @classmethod
    def own_space(cls, settings: FitSettings) -> PixelSpace | None: ...

    @classmethod
    def build(cls, settings: FitSettings, base: Space) -> Generator:
        """Assemble for training or sampling; fresh weights depend on the seed alone.

        Args:
            settings: Of its own class.
            base: The loaded base, or what `own_space` gave.
        """
        ...

    @property
    def modules(self) -> Mapping[str, nn.Module]: ...

    def trained_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Names and parameters that training updates, in a fixed order; none: nothing to train."""
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
