"""T2I-Adapter under mask control: a small network feeds the encoder of a base that stays frozen.

The paper's Table 1 gives it the worst FID of all: with a frozen base the style stays the base's.
Trained as the other methods are (48 a batch, 5 % empty prompts), timesteps drawn from the cubic
density of its paper; the authors' scripts for Stable Diffusion 1.x draw them uniformly.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from torch import Tensor, nn

from siamese_diffusion.core.errors import ConfigError
from siamese_diffusion.generators.denoiser import Condition, Denoiser
from siamese_diffusion.generators.settings import FitSettings
from siamese_diffusion.models.adapter import AdapterNetwork
from siamese_diffusion.models.base import Base
from siamese_diffusion.models.pixels import Space


class T2IAdapterSettings(FitSettings):
    """A run of T2I-Adapter."""

    generator: str = "t2i-adapter"
    timestep_sampling: Literal["uniform", "cubic"] = "cubic"


class T2IAdapter(Denoiser[AdapterNetwork]):
    """Features once an image, Eq. (4) for the adapter alone."""

    Settings = T2IAdapterSettings

    @classmethod
    def build_network(cls, settings: FitSettings, base: Space) -> AdapterNetwork:
        """A fresh adapter on the base's U-Net.

        Raises:
            ConfigError: If the feature maps would not fit the U-Net's at the image size.
        """
        assert isinstance(base, Base)
        network = AdapterNetwork(base.unet)
        factor = int(network.adapter.total_downscale_factor)
        size = settings.data.size
        if size % factor:
            raise ConfigError(
                f"data.size {size} is not a multiple of {factor}, by which the adapter of this "
                "base reduces images",
                hint=f"use --set data.size={-(-size // factor) * factor}",
            )
        network.gradient_checkpointing = settings.train.gradient_checkpointing
        return network

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        """The weights file of a run: the base is not changed."""
        return {"adapter": self.network.adapter}

    def condition(self, given: Mapping[str, Tensor]) -> Condition:
        return self.network.features(given["mask"])

    def predict(self, zt: Tensor, t: Tensor, c_text: Tensor, condition: Condition) -> Tensor:
        prediction: Tensor = self.network(zt, t, c_text, condition)
        return prediction
