"""Settings of bulk sampling; free of torch."""

from __future__ import annotations

from typing import Literal, TypeAlias

from pydantic import Field

from siamese_diffusion.core.config import Settings
from siamese_diffusion.data.settings import RandomRecipe

# Sampling at the paper's scale: 50 DDIM steps, guidance 9 (paper, Sec. 4.1).
STEPS = 50
GUIDANCE_SCALE = 9.0
MAX_STEPS = 1000  # the length of the training schedule
Precision: TypeAlias = Literal["fp32", "bf16"]


class SampleSettings(Settings):
    """How a folder of masks becomes a synthetic set."""

    recipe: Literal["real", "random"] = "real"
    """`real`: each mask unchanged; `random`: each mask flipped, scaled and shifted."""
    folds: int = Field(1, ge=1)
    """Images per mask."""
    steps: int = Field(STEPS, ge=1, le=MAX_STEPS)
    """DDIM steps."""
    guidance_scale: float = GUIDANCE_SCALE
    """Classifier-free guidance, dimensionless; 1 is none."""
    seed: int = 0
    """Base of every item's own seed."""
    batch_size: int = Field(8, ge=1)
    """Images denoised together; changes results by rounding at most (see `exact`)."""
    exact: bool = False
    """Denoise one image at a time: bits then do not depend on the batch size."""
    random: RandomRecipe = RandomRecipe()
    """Ranges of the `random` recipe."""
    precision: Precision = "fp32"
    """Numbers that the denoiser computes with; the autoencoder decodes in fp32 either way."""

    def departures(self) -> dict[str, object]:
        """Settings that change pixels beyond the paper's sampler, where they are not the default.

        They are left out of plans and hashes otherwise, so that sets begun before a setting
        existed can be continued.
        """
        return {} if self.precision == "fp32" else {"precision": self.precision}
