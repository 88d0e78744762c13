"""A generator that predicts noise under a condition: all of it but the network and the condition.

Inherit `Denoiser`, say what the network is, how a mask becomes a condition and how noise is
predicted under it; assembly, training loss, validation and DDIM sampling follow.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar, Generic, Self, TypeAlias, TypeVar

import torch
from torch import Tensor, nn

from siamese_diffusion.core.errors import ConfigError
from siamese_diffusion.diffusion.dpm_solver import integrate
from siamese_diffusion.diffusion.guidance import guided_predictor
from siamese_diffusion.diffusion.sampler import PAPER, Sampler
from siamese_diffusion.diffusion.schedule import add_noise
from siamese_diffusion.generators.base import Defaults
from siamese_diffusion.generators.settings import FitSettings
from siamese_diffusion.models.pixels import Space
from siamese_diffusion.objectives.denoising import denoising_loss

Condition: TypeAlias = tuple[Tensor, ...]  # batch first; computed once an image, not once a step
Terms: TypeAlias = Callable[[int, Mapping[str, Tensor]], dict[str, Tensor]]
NetworkT = TypeVar("NetworkT", bound=nn.Module)


class Objective(nn.Module):
    """Loss terms and the network they train, as one module that the training engine can wrap."""

    def __init__(self, network: nn.Module, terms: Terms) -> None:
        super().__init__()
        self.network = network
        self._terms = terms

    def forward(self, step: int, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return self._terms(step, batch)


class Denoiser(Defaults, ABC, Generic[NetworkT]):
    """See `generators.base.Generator` for what it offers.

    Args:
        network: What `build_network` gave.
        settings: The run's settings.
        base: Its schedule is that of training and sampling.
    """

    Settings: ClassVar[type[FitSettings]]
    needs_images = False
    any_sampler = True

    def __init__(self, network: NetworkT, settings: FitSettings, base: Space) -> None:
        self.network = network
        self.settings = settings
        self.objective: nn.Module = Objective(network, self.terms)
        self.alpha_bar: Tensor = base.scheduler.alphas_cumprod.float()

    @classmethod
    def build(cls, settings: FitSettings, base: Space) -> Self:
        """Assemble with fresh weights that depend on `train.seed` alone.

        Raises:
            ConfigError: If the settings are those of another generator.
        """
        if not isinstance(settings, cls.Settings):
            raise ConfigError(f"{cls.__name__} got settings of generator '{settings.generator}'")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.train.seed)
            network = cls.build_network(settings, base)
        return cls(network, settings, base)

    @classmethod
    @abstractmethod
    def build_network(cls, settings: FitSettings, base: Space) -> NetworkT:
        """The network; parameters that require gradient are trained."""

    @abstractmethod
    def condition(self, given: Mapping[str, Tensor]) -> Condition:
        """What `given["mask"]`, (B, 3, H, W) in {0, 1}, gives to every prediction.

        `given["image"]`, same shape in [0, 1], is there in training if `needs_images` and in
        sampling for `FromPairs` alone.
        """

    @abstractmethod
    def predict(self, zt: Tensor, t: Tensor, c_text: Tensor, condition: Condition) -> Tensor:
        """Noise prediction, (B, C, h, w)."""

    def terms(self, step: int, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Named terms of one batch; those called `loss/...` are added up. Eq. (4) by default."""
        return {"loss/mask": denoising_loss(self.training_prediction(batch), batch["eps"])}

    def training_prediction(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Prediction on the noised batch under its mask, as in sampling."""
        zt = add_noise(batch["z0"], batch["eps"], batch["alpha_bar_t"])
        return self.predict(zt, batch["t"], batch["c_text"], self.condition(batch))

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        """The weights files of a run."""
        return {"network": self.network}

    def trained_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        return ((n, p) for n, p in self.network.named_parameters() if p.requires_grad)

    def validation_loss(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Squared error of the sampling-time prediction per sample, (B,)."""
        eps_m = self.training_prediction(batch)
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
        """Sample under the condition of a mask; shapes as in `generators.base.Generator`."""
        predict = guided_predictor(
            self.predict,
            self.condition({"mask": mask}),
            c_text=c_text,
            c_empty=c_empty,
            scale=guidance_scale,
            sampler=sampler,
        )
        return integrate(sampler, predict, noise, self.alpha_bar.to(noise.device), steps)
