"""ArSDM: a diffusion model on pixels, from scratch, with the mask in its decoder's normalisation.

No base, no text, no guidance. A loss that balances lesion and background by area; a moving average
of the weights; DDIM with eta 1 and 200 steps. As published it takes some 18,000 updates of 8 at a
width of 256 (652 M parameters); `model.width` makes it smaller.

Source: ArSDM (MICCAI 2023, arXiv 2309.01111).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from siamese_diffusion.core.errors import ConfigError
from siamese_diffusion.diffusion.ddim import ddim_sample
from siamese_diffusion.diffusion.guidance import guided_predictor
from siamese_diffusion.diffusion.sampler import PAPER, Sampler
from siamese_diffusion.diffusion.schedule import add_noise, predict_z0
from siamese_diffusion.generators.base import require_sampler
from siamese_diffusion.generators.denoiser import Condition, Denoiser
from siamese_diffusion.generators.refinement import frozen_segmenter, refinement_loss
from siamese_diffusion.generators.settings import FitSettings, PreviewSettings
from siamese_diffusion.generators.tensors import PairTensors
from siamese_diffusion.models.pixels import PixelSpace, Space
from siamese_diffusion.models.settings import SpadeUNetSettings
from siamese_diffusion.models.small_unet import SmallUNet
from siamese_diffusion.models.spade_unet import SpadeUNet
from siamese_diffusion.objectives.adaptive import area_weights, weighted_l1
from siamese_diffusion.training.settings import TrainSettings

BETAS = {"beta_start": 0.0015, "beta_end": 0.0205}  # of the released configurations


class ArSDMSettings(FitSettings):
    """A run of ArSDM; the defaults are those of its release on one GPU."""

    generator: str = "arsdm"
    model: SpadeUNetSettings = SpadeUNetSettings()
    adaptive: bool = True
    """Weight pixels by area; without it the loss is the plain absolute error."""
    refine: Literal["off", "x0", "official"] = "off"
    """Add a frozen segmenter's loss in the last steps. `x0`: on the one-step estimate of the clean
    image, where gradient flows (our extension). `official`: on whole samples, as released, where
    none does: the loss is a constant, so that training goes on as with `off` at many times the
    cost."""
    refine_last_steps: int = Field(362, ge=1)
    """Steps with refinement, at the end; two epochs of the paper's polyps."""
    refine_weight: float = Field(1.0, ge=0)
    refine_below_timestep: int = Field(200, ge=1, le=1000)
    """`x0` takes samples below this timestep alone, whose estimate shows something."""
    refine_sampling_steps: int = Field(200, ge=1, le=1000)
    """DDIM steps of `official`."""
    eta: float = Field(1.0, ge=0, le=1)
    """Noise added while sampling; 0 is the deterministic sampler of the other methods."""
    train: TrainSettings = TrainSettings(
        steps=18100, batch_size=8, learning_rate=8e-6, ema_decay=0.9999
    )
    preview: PreviewSettings = PreviewSettings(steps=200, guidance_scale=1.0)


class ArSDM(Denoiser[SpadeUNet]):
    """A SPADE U-Net under a one-hot mask; prompts and guidance have no effect."""

    Settings: ClassVar[type[FitSettings]] = ArSDMSettings
    any_sampler = False  # its eta is part of the method

    @classmethod
    def own_space(cls, settings: FitSettings) -> PixelSpace:
        return PixelSpace(**BETAS)

    @classmethod
    def build_network(cls, settings: FitSettings, base: Space) -> SpadeUNet:
        """A fresh U-Net.

        Raises:
            ConfigError: If it cannot halve the image size as often as it has levels.
        """
        assert isinstance(settings, ArSDMSettings)
        size, factor = settings.data.size, settings.model.factor
        if size % factor:
            raise ConfigError(
                f"data.size {size} is not a multiple of {factor}, by which ArSDM's U-Net of "
                f"{len(settings.model.multipliers)} levels reduces images",
                hint=f"use --set data.size={-(-size // factor) * factor}, or fewer "
                "model.multipliers",
            )
        network = SpadeUNet(settings.model)
        network.gradient_checkpointing = settings.train.gradient_checkpointing
        return network

    @classmethod
    def remarks(
        cls, settings: FitSettings, degenerate: Mapping[str, list[str]], *, pairs: int
    ) -> list[str]:
        """Warn of pictures whose loss is zero."""
        assert isinstance(settings, ArSDMSettings)
        silent = sum(len(stems) for stems in degenerate.values())
        if not silent or not settings.adaptive:
            return []
        return [
            f"{silent} of {pairs} pairs have no lesion or nothing else: ArSDM's adaptive loss is "
            "zero for them, so they teach nothing (adaptive=false weighs all pixels alike)"
        ]

    def condition(self, given: Mapping[str, Tensor]) -> Condition:
        return (one_hot(given["mask"]),)

    def predict(self, zt: Tensor, t: Tensor, c_text: Tensor, condition: Condition) -> Tensor:
        eps: Tensor = self.network(zt, t, condition[0])
        return eps

    def terms(self, step: int, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The absolute error, weighted by area, and the refinement in the last steps."""
        own, eps = self._own, batch["eps"]
        eps_m = self.training_prediction(batch)
        mask = batch["mask"][:, :1]
        if own.adaptive:
            terms = {"loss/adaptive": weighted_l1(eps_m, eps, area_weights(mask))}
        else:
            terms = {"loss/mask": weighted_l1(eps_m, eps, torch.ones_like(mask))}
        last = step >= self.settings.train.steps - own.refine_last_steps
        if own.refine != "off" and last and self.segmenter is not None:
            terms["loss/refine"] = own.refine_weight * self._refinement(batch, eps_m)
        return terms

    @property
    def segmenter(self) -> SmallUNet | None:
        """The frozen segmenter, once `prepare` has made it."""
        found = getattr(self.objective, "segmenter", None)
        assert found is None or isinstance(found, SmallUNet)
        return found

    def prepare(self, pairs: PairTensors, *, cache: Path) -> None:
        """Train the segmenter of the refinement on the run's pairs."""
        if self._own.refine != "off":
            seed = self.settings.train.seed
            self.objective.segmenter = frozen_segmenter(pairs, seed=seed, cache=cache)

    def _refinement(self, batch: Mapping[str, Tensor], eps_m: Tensor) -> Tensor:
        own, mask, segmenter = self._own, batch["mask"], self.segmenter
        assert segmenter is not None
        if own.refine == "official":
            drawn = self.sample_latents(
                mask,
                batch["c_text"],
                batch["c_text"],
                batch["eps"],
                steps=own.refine_sampling_steps,
                guidance_scale=1.0,
            )
            return refinement_loss(segmenter, drawn.clamp(-1, 1), mask).mean()
        rows = (batch["t"] < own.refine_below_timestep).nonzero().squeeze(1)
        if not len(rows):
            return eps_m.new_zeros(())
        a = batch["alpha_bar_t"][rows]
        zt = add_noise(batch["z0"][rows], batch["eps"][rows], a)
        estimate = predict_z0(zt, eps_m[rows].float(), a).clamp(-1, 1)
        # the samples left out count with zero, so that the weight does not depend on the draw
        return refinement_loss(segmenter, estimate, mask[rows]).sum() / len(eps_m)

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
        """DDIM with its own eta; one pass a step, as there is no prompt to guide by.

        Raises:
            ConfigError: If another sampler is asked for.
        """
        require_sampler(self, sampler)
        condition = self.condition({"mask": mask})
        predict = guided_predictor(
            self.predict, condition, c_text=c_text, c_empty=c_empty, scale=1.0
        )
        alpha_bar = self.alpha_bar.to(noise.device)
        return ddim_sample(predict, noise, alpha_bar, steps, eta=self._own.eta)

    @property
    def _own(self) -> ArSDMSettings:
        assert isinstance(self.settings, ArSDMSettings)
        return self.settings


def one_hot(mask: Tensor) -> Tensor:
    """A mask of equal channels (B, 3, H, W) in {0, 1} as (B, 2, H, W): background, lesion."""
    lesion = mask[:, :1]
    return torch.cat([1 - lesion, lesion], 1)
