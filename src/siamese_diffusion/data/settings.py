"""Settings of the data layer; free of torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from siamese_diffusion.core.config import Settings

SIZE_STEP = 8  # the autoencoder halves three times


class DataSettings(Settings):
    """How images, masks and prompts reach the model."""

    size: int = Field(default=384, ge=8)
    """Side of images and masks in pixels, a multiple of 8 (paper, Sec. 4.2: 384)."""
    prompt: str | None = None
    """Prompt of all pairs; None takes the folder's own."""
    empty_prompt_probability: float = Field(default=0.05, ge=0.0, le=1.0)
    """Share of training steps with the empty prompt (release: 5 %)."""
    degenerate: Literal["warn", "drop"] = "warn"
    """What happens to pairs whose mask is empty or all foreground."""

    @field_validator("size")
    @classmethod
    def _is_multiple_of_step(cls, size: int) -> int:
        if size % SIZE_STEP:
            padded = -(-size // SIZE_STEP) * SIZE_STEP
            raise ValueError(f"size {size} is not a multiple of {SIZE_STEP}; use {padded}")
        return size


class RandomRecipe(Settings):
    """Ranges of the `random` mask recipe. The release names flip, scale and shift, no ranges."""

    flip_horizontal: float = Field(default=0.5, ge=0.0, le=1.0)
    """Probability of mirroring left and right."""
    flip_vertical: float = Field(default=0.5, ge=0.0, le=1.0)
    """Probability of mirroring top and bottom."""
    scale: tuple[float, float] = (0.7, 1.3)
    """Smallest and largest factor of length, about the centre of the lesion's bounding box."""
    shift: tuple[float, float] = (-0.2, 0.2)
    """Smallest and largest shift along each axis, as a share of that side."""
    max_cut: float = Field(default=0.1, ge=0.0, lt=1.0)
    """Largest share of the foreground that may leave the picture."""
    min_area: float = Field(default=0.002, gt=0.0, lt=1.0)
    """Smallest foreground, as a share of the picture; smaller lesions may not shrink."""
    max_area: float = Field(default=0.8, gt=0.0, lt=1.0)
    """Largest foreground, as a share of the picture; larger lesions may not grow."""
    keep_border: bool = True
    """A lesion that the border cuts stays at that border, so that no straight edge moves inwards.
    Sets whose foreground lies everywhere, such as nuclei, need False to be moved at all."""
    attempts: int = Field(default=8, ge=1, le=100)
    """Draws before gentler ones are made."""

    @model_validator(mode="after")
    def _ranges_fit(self) -> RandomRecipe:
        low, high = self.scale
        if not 0.1 <= low <= 1.0 <= high <= 10.0:
            raise ValueError(f"scale must hold 1.0 within 0.1 to 10, got {low} to {high}")
        low, high = self.shift
        if not -1.0 < low <= 0.0 <= high < 1.0:
            raise ValueError(f"shift must hold 0.0 within -1 to 1, got {low} to {high}")
        if self.min_area >= self.max_area:
            raise ValueError(
                f"min_area must be below max_area, got {self.min_area} and {self.max_area}"
            )
        return self
