"""Siamese-Diffusion: the paper's method, assembled from network, equations and sampler."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from siamese_diffusion.core.errors import ConfigError
from siamese_diffusion.diffusion.dpm_solver import integrate
from siamese_diffusion.diffusion.guidance import guided_predictor
from siamese_diffusion.diffusion.sampler import PAPER, Sampler
from siamese_diffusion.diffusion.schedule import add_noise
from siamese_diffusion.generators.base import Defaults
from siamese_diffusion.generators.settings import FitSettings, SiameseFitSettings
from siamese_diffusion.models.base import Base
from siamese_diffusion.models.pixels import Space
from siamese_diffusion.models.siamese import SiameseNetwork
from siamese_diffusion.objectives.siamese import siamese_terms


class SiameseObjective(nn.Module):
    """Eq. (6) as a module, so that the training engine can wrap it."""

    def __init__(self, network: SiameseNetwork, settings: SiameseFitSettings) -> None:
        super().__init__()
        self.network = network
        self._settings = settings

    def forward(self, step: int, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return siamese_terms(
            self.network,
            batch,
            k=step,
            n_iter=self._settings.train.steps,
            settings=self._settings.objective,
        )


class Siamese(Defaults):
    """Mask-Diffusion and Image-Diffusion in training, Mask-Diffusion alone in sampling."""

    Settings: ClassVar[type[FitSettings]] = SiameseFitSettings
    any_sampler = True

    def __init__(self, network: SiameseNetwork, settings: SiameseFitSettings, base: Base) -> None:
        self.network = network
        self.objective: nn.Module = SiameseObjective(network, settings)
        self._alpha_bar = base.scheduler.alphas_cumprod.float()
        objective = settings.objective
        self.needs_images = (
            objective.image_pass or objective.consistency_weight > 0 or objective.online_augment
        )

    @classmethod
    def build(cls, settings: FitSettings, base: Space) -> Self:
        """Attach a fresh control branch to the base's U-Net.

        Raises:
            ConfigError: If the settings are those of another generator.
        """
        if not isinstance(settings, SiameseFitSettings):
            raise ConfigError(f"generator 'siamese' got settings of '{settings.generator}'")
        assert isinstance(base, Base)  # it has no space of its own
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.train.seed)
            network = SiameseNetwork(base.unet, settings.model)
        network.gradient_checkpointing = settings.train.gradient_checkpointing
        return cls(network, settings, base)

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        """The weights files of a run."""
        return {"control": self.network.control, "decoder": self.network.decoder}

    def trained_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        return self.network.trained_parameters()

    def validation_loss(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Squared error of Mask-Diffusion per sample, (B,)."""
        net, t, c_text = self.network, batch["t"], batch["c_text"]
        zt = add_noise(batch["z0"], batch["eps"], batch["alpha_bar_t"])
        c_m = net.controls(zt, t, c_text, net.hint(batch["mask"]))
        eps_m = net.predict(net.encode(zt, t, c_text), c_text, c_m)
        return (eps_m.float() - batch["eps"].float()).square().flatten(1).mean(1)

    @torch.no_grad()
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
        """Sample under the mask control; the hint is encoded once, both prompts share a batch.

        Args:
            mask: (B, 3, H, W) in {0, 1}.
            c_text, c_empty: Embeddings of prompt and empty prompt, (B, L, D).
            noise: z_T, (B, C, H/8, W/8).
            steps: Predictions.
            guidance_scale: 9 in the paper; 1 runs the prompt's branch alone.
            sampler: Solver, and where guidance acts.
        """
        net = self.network

        def predict(zt: Tensor, t: Tensor, context: Tensor, hint: tuple[Tensor, ...]) -> Tensor:
            controls = net.controls(zt, t, context, *hint)
            return net.predict(net.encode(zt, t, context), context, controls)

        guided = guided_predictor(
            predict,
            (net.hint(mask),),
            c_text=c_text,
            c_empty=c_empty,
            scale=guidance_scale,
            sampler=sampler,
        )
        return integrate(sampler, guided, noise, self._alpha_bar.to(noise.device), steps)
