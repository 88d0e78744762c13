"""What a generator is: settings, assembly, loss terms, and how it samples.

Trainer, checkpoints, logs, bulk sampling, manifest and seeds are inherited by whatever fits here.
`denoiser.Denoiser` does most of it for a method that predicts noise under a condition.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import ClassVar, Literal, Protocol, TypeAlias

import torch
from torch import Tensor, nn

from siamese_diffusion.core.errors import ConfigError
from siamese_diffusion.diffusion.sampler import PAPER, Sampler
from siamese_diffusion.generators.settings import CLOSE_COPY, FitSettings
from siamese_diffusion.generators.tensors import PairTensors
from siamese_diffusion.models.pixels import PixelSpace, Space

Control: TypeAlias = Literal["mask", "mask+image"]


class Defaults:
    """What most generators have in common; inherit it and say only what differs.

    Attributes:
        control: What an image is sampled from; "mask+image" comes with `FromPairs`.
        nature: What its images are, for manifest and PNG text: "synthetic", or how near to real
            ones they are.
        any_sampler: Whether its sampling takes a `sampler`, beside the paper's.
    """

    control: ClassVar[Control] = "mask"
    nature: ClassVar[str] = "synthetic"
    any_sampler: ClassVar[bool] = False

    @classmethod
    def own_space(cls, settings: FitSettings) -> PixelSpace | None:
        """What it works on instead of a base; None asks for a base."""
        return None

    @classmethod
    def remarks(
        cls, settings: FitSettings, degenerate: Mapping[str, list[str]], *, pairs: int
    ) -> list[str]:
        """Warnings about the training data, beyond those that hold for every method.

        Args:
            settings: Of the run.
            degenerate: Stems kept although their masks are "empty" or "full".
            pairs: Number of all pairs.
        """
        return []

    def prepare(self, pairs: PairTensors, *, cache: Path) -> None:
        """Learn from the training pairs what the loss terms need, before the first step.

        It must give the same at every start of a run; `cache` is the run's folder for that.
        """


class FromPairs(Defaults, ABC):
    """A method that samples from a mask and its image: the outputs stay close to that image.

    It is openly another kind than one that samples from masks: other pipelines, another command
    line, another mark in the manifest. Kinds to come (own masks, lesion-free backgrounds) are
    further classes beside this one.
    """

    control = "mask+image"
    nature = CLOSE_COPY

    @abstractmethod
    def sample_from_pairs(
        self,
        mask: Tensor,
        image: Tensor,
        c_text: Tensor,
        c_empty: Tensor,
        noise: Tensor,
        *,
        steps: int,
        guidance_scale: float,
    ) -> Tensor:
        """Latents (B, C, h, w) for masks (B, 3, H, W) in {0, 1} and images, same, in [0, 1]."""

    def sample_latents(
        self,
        mask: Tensor,
        c_text: Tensor,
        c_empty: Tensor,
        noise: Tensor,
        *,
        steps: int,
        guidance_scale: float,
        sampler: Sampler = PAPER,
    ) -> Tensor:
        """Refuse: no image can be given here.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError(
            f"{type(self).__name__} samples from masks and images, but only masks were given",
            hint="give the images of the masks: siamdiff sample RUN --masks DATA --images DATA",
        )


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
    def remarks(
        cls, settings: FitSettings, degenerate: Mapping[str, list[str]], *, pairs: int
    ) -> list[str]: ...

    @classmethod
    def build(cls, settings: FitSettings, base: Space) -> Generator:
        """Assemble for training or sampling; fresh weights depend on the seed alone.

        Args:
            settings: Of its own class.
            base: The loaded base, or what `own_space` gave.
        """
        ...

    def prepare(self, pairs: PairTensors, *, cache: Path) -> None: ...

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


def draw(
    generator: Generator,
    mask: Tensor,
    image: Tensor | None,
    c_text: Tensor,
    c_empty: Tensor,
    noise: Tensor,
    *,
    steps: int,
    guidance_scale: float,
    sampler: Sampler = PAPER,
) -> Tensor:
    """Sample by whatever a generator is sampled from; the image goes to `FromPairs` alone.

    Raises:
        ConfigError: If a generator that samples in its own way is asked for another.
    """
    require_sampler(generator, sampler)
    chosen = {} if sampler == PAPER else {"sampler": sampler}  # not every generator takes one
    pictures = [mask]
    call: Callable[..., Tensor] = generator.sample_latents
    if isinstance(generator, FromPairs) and image is not None:
        pictures.append(image)
        call = generator.sample_from_pairs
    return call(
        *pictures, c_text, c_empty, noise, steps=steps, guidance_scale=guidance_scale, **chosen
    )


def require_sampler(generator: Generator | type[Generator], sampler: Sampler) -> None:
    """Refuse another sampler than the paper's where a generator knows only its own.

    Raises:
        ConfigError: Naming the generator.
    """
    if sampler != PAPER and not getattr(generator, "any_sampler", False):
        name = generator.Settings.model_fields["generator"].default
        raise ConfigError(
            f"generator '{name}' samples in a way of its own, but {sampler} was asked for",
            hint="leave out --sampler and --guidance-interval",
        )


def move(generator: Generator, device: torch.device, dtype: torch.dtype | None = None) -> None:
    """Bring all networks of a generator to a device."""
    generator.objective.to(device=device, dtype=dtype)
