"""Terms of a comparison; free of torch."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from siamese_diffusion.core.config import Settings


class Scale(Settings):
    """What every method gets, and what single methods need on top.

    `presets` go to `fit` for all; a method's own come after them.
    """

    presets: tuple[str, ...]
    steps: int
    """Training updates."""
    batch_size: int
    """Effective batch."""
    sampling_steps: int
    guidance_scale: float
    own_presets: dict[str, tuple[str, ...]] = Field({})
    own_sampling_steps: dict[str, int] = Field({})


SCALES: dict[str, Scale] = {
    # For two cores and a small base. ArSDM has no base to stand on and is cut to what a CPU trains.
    "small": Scale(
        presets=("small",),
        steps=1000,
        batch_size=16,
        sampling_steps=25,
        guidance_scale=2.0,
        own_presets={"arsdm": ("arsdm-cpu",)},
        own_sampling_steps={"arsdm": 50},
    ),
    # The paper's, Sec. 4.2. For ArSDM 3,000 x 48 pictures are what its own 18,100 x 8 are.
    "paper": Scale(
        presets=("paper",),
        steps=3000,
        batch_size=48,
        sampling_steps=50,
        guidance_scale=9.0,
        own_sampling_steps={"arsdm": 200},
    ),
}


class CompareSettings(Settings):
    """One comparison; generators and seeds may be added to one that has begun."""

    generators: tuple[str, ...] = ("siamese", "controlnet")
    seeds: int = Field(1, ge=1)
    """Trainings a method, with train.seed 42, 43, ... and sampling seed 0, 1, ..."""
    scale: Literal["small", "paper"] = "small"
    base: str = "tiny"
    split: str | None = None
    """Training pairs; None takes `train` if the folder has that list, else all."""
    mask_split: str | None = None
    """Pairs whose masks are sampled; None takes the training pairs, as the paper's Table 1 does."""
    held_out: str = "val"
    """Real pairs that nothing is trained on, for the scores."""
    masks: int | None = Field(None, ge=2)
    """Number of masks sampled, evenly spaced; None takes all."""
    steps: int | None = Field(None, ge=1)
    """Training updates instead of the scale's."""
    extractors: dict[str, Path] = Field({})
    """Weights of `inception` and `lpips-alex`, for scores that need them; may be given later."""
    overrides: tuple[str, ...] = ()
    """Settings of every fit, `section.key=value`."""

    @model_validator(mode="after")
    def _names_differ(self) -> CompareSettings:
        if not self.generators:
            raise ValueError("no generators are given")
        twice = {name for name in self.generators if self.generators.count(name) > 1}
        if twice:
            raise ValueError(f"generator '{min(twice)}' is given twice")
        return self

    def fixed(self) -> dict[str, object]:
        """What must agree for a comparison to be continued."""
        return self.model_dump(mode="json", exclude={"generators", "seeds", "extractors"})

    def fit_presets(self, generator: str) -> str:
        """Presets of a method's fit, joined."""
        scale = SCALES[self.scale]
        return ",".join((*scale.presets, *scale.own_presets.get(generator, ())))

    def fit_overrides(self, seed: int) -> tuple[str, ...]:
        """Settings of every method's fit with a seed; what the user asked for goes last."""
        scale = SCALES[self.scale]
        return (
            f"train.steps={self.steps or scale.steps}",
            f"train.batch_size={scale.batch_size}",
            *self.overrides,
            f"train.seed={42 + seed}",
        )

    def sampling_steps(self, generator: str) -> int:
        """DDIM steps of a method."""
        scale = SCALES[self.scale]
        return scale.own_sampling_steps.get(generator, scale.sampling_steps)
