"""ControlNet under mask control, the paper's baseline "(M)": the siamese code with its extras off.

Table 5, setting 1: ControlNet's own hint input, the denoising loss alone, and, as in the paper's
method, the U-Net decoder trained along; `model.train_decoder=false` is stock ControlNet.
"""

from __future__ import annotations

from pydantic import model_validator

from siamese_diffusion.generators.settings import SiameseFitSettings
from siamese_diffusion.generators.siamese import Siamese
from siamese_diffusion.models.settings import ModelSettings
from siamese_diffusion.objectives.settings import SiameseSettings

EXTRAS_OFF = SiameseSettings(image_pass=False, consistency_weight=0, online_augment=False)


class ControlNetFitSettings(SiameseFitSettings):
    """A run of ControlNet (M)."""

    generator: str = "controlnet"
    model: ModelSettings = ModelSettings(hint="sparse")
    objective: SiameseSettings = EXTRAS_OFF

    @model_validator(mode="after")
    def _has_no_extras(self) -> ControlNetFitSettings:
        extras = ("image_pass", "consistency_weight", "online_augment")
        on = [name for name in extras if getattr(self.objective, name)]
        if on:
            raise ValueError(
                f"ControlNet trains by the denoising loss alone, but objective.{on[0]} is "
                f"{getattr(self.objective, on[0])}; use the generator siamese for it"
            )
        return self


class ControlNet(Siamese):
    """One control branch, one denoising loss (Eq. 7)."""

    Settings = ControlNetFitSettings
