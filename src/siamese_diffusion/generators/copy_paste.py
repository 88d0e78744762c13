"""Copy-Paste: the real set once more, the paper's baseline for "more samples per epoch" (Sec. 5.2).

Nothing is trained and nothing is synthesised. It runs through the same writing, counting and
merging as real generators, and every item says which image it is a copy of.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from siamese_diffusion.generators.base import FromPairs
from siamese_diffusion.generators.settings import COPY, FitSettings
from siamese_diffusion.models.pixels import PixelSpace, Space


class CopyPasteSettings(FitSettings):
    """Of a run without training only `data` matters."""

    generator: str = "copy-paste"


class CopyPaste(FromPairs):
    """Each image as it is, at the size of the other methods."""

    Settings: ClassVar[type[FitSettings]] = CopyPasteSettings
    nature = COPY
    needs_images = True

    def __init__(self) -> None:
        self.objective: nn.Module = nn.Module()

    @classmethod
    def own_space(cls, settings: FitSettings) -> PixelSpace:
        return PixelSpace()

    @classmethod
    def build(cls, settings: FitSettings, base: Space) -> Self:
        return cls()

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        """No weights."""
        return {}

    def trained_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        return iter(())

    def validation_loss(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Nothing is predicted, so nothing is wrong: zeros, (B,)."""
        return torch.zeros(len(batch["mask"]))

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
        """The images, in [-1, 1]."""
        return image * 2 - 1
