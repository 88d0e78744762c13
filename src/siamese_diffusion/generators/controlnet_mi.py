"""ControlNet under mask and image, the paper's "(M+I)": near-copies (Sec. 5.2, Fig. 5).

The paper publishes no code for it. By default (`fusion=feature`) it is Image-Diffusion of
`siamese` trained alone: the same branch encodes mask and image, and their features are mixed as in
Eq. 5 without its stop-gradient, since no other term would train the mask's path.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from siamese_diffusion.diffusion.dpm_solver import integrate
from siamese_diffusion.diffusion.guidance import guided_predictor
from siamese_diffusion.diffusion.sampler import PAPER, Sampler
from siamese_diffusion.diffusion.schedule import add_noise
from siamese_diffusion.generators.base import FromPairs
from siamese_diffusion.generators.denoiser import Condition, Denoiser
from siamese_diffusion.generators.settings import FitSettings
from siamese_diffusion.models.base import Base
from siamese_diffusion.models.pixels import Space
from siamese_diffusion.models.settings import ModelSettings
from siamese_diffusion.models.siamese import SiameseNetwork, fresh_control
from siamese_diffusion.objectives.denoising import denoising_loss


class ControlNetMISettings(FitSettings):
    """A run of ControlNet (M+I)."""

    generator: str = "controlnet-mi"
    model: ModelSettings = ModelSettings(hint="sparse")
    fusion: Literal["feature", "concat"] = "feature"
    """Two hints through one branch, their features mixed; or one hint of six channels."""
    mask_weight: float = 1.0
    """w_m of the mix, as in Eq. (5); `fusion=feature` only."""


class ControlNetMI(FromPairs, Denoiser[SiameseNetwork]):
    """One control branch under a mask and its image, one denoising loss (Eq. 8)."""

    Settings = ControlNetMISettings
    needs_images = True
    any_sampler = True

    @classmethod
    def build_network(cls, settings: FitSettings, base: Space) -> SiameseNetwork:
        assert isinstance(settings, ControlNetMISettings) and isinstance(base, Base)
        channels = 6 if settings.fusion == "concat" else 3
        control = fresh_control(base.unet, settings.model, channels=channels)
        network = SiameseNetwork(base.unet, settings.model, control=control)
        network.gradient_checkpointing = settings.train.gradient_checkpointing
        return network

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        """The weights files of a run."""
        return {"control": self.network.control, "decoder": self.network.decoder}

    def condition(self, given: Mapping[str, Tensor]) -> Condition:
        """The hint of mask and image: two, or one of both."""
        hint, mask, image = self.network.hint, given["mask"], given["image"]
        if self._own.fusion == "concat":
            return (hint(torch.cat([mask, image], 1)),)
        return hint(mask), hint(image)

    def predict(
        self, zt: Tensor, t: Tensor, c_text: Tensor, condition: Condition, *, w_i: float = 1.0
    ) -> Tensor:
        """Noise prediction; `w_i` is 1 in sampling and rises to it in training."""
        net = self.network
        c_m, *rest = (net.controls(zt, t, c_text, hint) for hint in condition)
        for c_i in rest:
            w_m = self._own.mask_weight
            c_m = tuple(w_i * i + w_m * m for i, m in zip(c_i, c_m, strict=True))
        return net.predict(net.encode(zt, t, c_text), c_text, c_m)

    def terms(self, step: int, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The denoising loss of Image-Diffusion alone; w_i = k / N_iter as in the siamese step."""
        w_i = step / self.settings.train.steps
        zt = add_noise(batch["z0"], batch["eps"], batch["alpha_bar_t"])
        condition = self.condition(batch)
        eps_mix = self.predict(zt, batch["t"], batch["c_text"], condition, w_i=w_i)
        terms = {"loss/image": denoising_loss(eps_mix, batch["eps"])}
        if self._own.fusion == "feature":
            terms["weight/image"] = zt.new_tensor(w_i)
        return terms

    @torch.no_grad()
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
        sampler: Sampler = PAPER,
    ) -> Tensor:
        """Sample; both prompts see the same mix of mask and image."""
        predict = guided_predictor(
            self.predict,
            self.condition({"mask": mask, "image": image}),
            c_text=c_text,
            c_empty=c_empty,
            scale=guidance_scale,
            sampler=sampler,
        )
        return integrate(sampler, predict, noise, self.alpha_bar.to(noise.device), steps)

    @property
    def _own(self) -> ControlNetMISettings:
        assert isinstance(self.settings, ControlNetMISettings)
        return self.settings
