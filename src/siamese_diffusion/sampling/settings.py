"""Settings of bulk sampling; free of torch."""

from __future__ import annotations

from typing import Literal, Self, TypeAlias

from pydantic import Field, model_validator

from siamese_diffusion.core.config import Settings
from siamese_diffusion.data.settings import RandomRecipe
from siamese_diffusion.diffusion.sampler import PAPER, Sampler, SamplerName

# Sampling at the paper's scale: 50 DDIM steps, guidance 9 (paper, Sec. 4.1).
STEPS = 50
GUIDANCE_SCALE = 9.0
MAX_STEPS = 1000  # the length of the training schedule
Precision: TypeAlias = Literal["fp32", "bf16"]
# Settings that change pixels and came after the first sets were made. Plans and hashes name them
# only where they are not the default, so that sets begun before a setting existed can be continued.
DEPARTURES = frozenset({"precision", "sampler", "guidance_interval"})


class SampleSettings(Settings):
    """How a folder of masks becomes a synthetic set."""

    recipe: Literal["real", "random"] = "real"
    """`real`: each mask unchanged; `random`: each mask flipped, scaled and shifted."""
    folds: int = Field(1, ge=1)
    """Images per mask."""
    steps: int = Field(STEPS, ge=1, le=MAX_STEPS)
    """Predictions of the sampler; dpm-solver++ needs about 20."""
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

    sampler: SamplerName = PAPER.name
    """Solver; `dpm-solver++` is made for few steps."""
    guidance_interval: tuple[int, int] | None = None
    """Lowest and highest timestep at which guidance acts; elsewhere a step costs half."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        require_possible_sampler(self.chosen_sampler, self.steps)
        return self

    @property
    def chosen_sampler(self) -> Sampler:
        """Solver and interval as the generators take them."""
        return Sampler(self.sampler, self.guidance_interval)

    def departures(self) -> dict[str, object]:
        """Those of `DEPARTURES` that are not the default, as JSON gives them back."""
        return self.model_dump(mode="json", include=set(DEPARTURES), exclude_defaults=True)


def require_possible_sampler(sampler: Sampler, steps: int) -> None:
    """Refuse a guidance interval outside the schedule and more steps than a solver can take.

    Raises:
        ValueError: Naming the value and its limits.
    """
    if sampler.guidance_interval is not None:
        low, high = sampler.guidance_interval
        if not 0 <= low <= high < MAX_STEPS:
            raise ValueError(
                f"guidance interval {low}:{high} is impossible; it must be LOW:HIGH with "
                f"0 <= LOW <= HIGH <= {MAX_STEPS - 1}"
            )
    if sampler.name == "dpm-solver++" and steps >= MAX_STEPS:
        raise ValueError(f"steps {steps} are too many for dpm-solver++; at most {MAX_STEPS - 1}")
