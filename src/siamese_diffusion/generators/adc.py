"""ADC: a mask-only student and a teacher that also sees the image, trained together.

The student's noise prediction is pulled to the teacher's, weighted by area so that lesion and
background count alike; only the student samples. Where Siamese-Diffusion shares all weights
between its two passes, the teacher here has a control branch and a decoder of its own.

Source: Adaptively Distilled ControlNet (MICCAI 2025, arXiv 2507.23652) as far as abstract and
release tell; the release trains the student alone (preset `adc-released`).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import ClassVar, Literal

from diffusers import UNet2DConditionModel
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from siamese_diffusion.diffusion.schedule import add_noise
from siamese_diffusion.generators.denoiser import Condition, Denoiser
from siamese_diffusion.generators.settings import FitSettings
from siamese_diffusion.models.base import Base
from siamese_diffusion.models.pixels import Space
from siamese_diffusion.models.settings import ModelSettings
from siamese_diffusion.models.siamese import SiameseNetwork
from siamese_diffusion.objectives.adaptive import area_weights, weighted_mse
from siamese_diffusion.objectives.denoising import denoising_loss


class ADCSettings(FitSettings):
    """A run of ADC."""

    generator: str = "adc"
    model: ModelSettings = ModelSettings()
    """Of both control branches."""
    teacher_weight: float = Field(1.0, ge=0)
    """Of the teacher's denoising loss; 0 in the release."""
    distill_weight: float = Field(1.0, ge=0)
    """Of the distillation term; 0 in the release."""
    image_weight: float = Field(1.0, ge=0)
    """Of the image's controls in the teacher's mix; 0.25 in the release."""
    pooling: Literal["nearest", "max"] = "nearest"
    """How the mask reaches latent size for the weights; `max` keeps lesions below 8 pixels."""

    @property
    def has_teacher(self) -> bool:
        """Whether any term needs the teacher."""
        return self.teacher_weight > 0 or self.distill_weight > 0


class ADCNetwork(nn.Module):
    """Student and teacher on one frozen encoder.

    Args:
        unet: The base's U-Net; its decoder becomes the student's.
        settings: Of both control branches.
        has_teacher: Whether the teacher is trained.
    """

    def __init__(
        self, unet: UNet2DConditionModel, settings: ModelSettings, *, has_teacher: bool
    ) -> None:
        super().__init__()
        twin = copy.deepcopy(unet)
        for shared in ("time_proj", "time_embedding", "conv_in", "down_blocks", "mid_block"):
            setattr(twin, shared, getattr(unet, shared))
        self.student = SiameseNetwork(unet, settings)
        self.teacher = SiameseNetwork(twin, settings)
        if not has_teacher:
            self.teacher.requires_grad_(False)


class ADC(Denoiser[ADCNetwork]):
    """Three terms in training, the student alone in sampling."""

    Settings: ClassVar[type[FitSettings]] = ADCSettings

    def __init__(self, network: ADCNetwork, settings: FitSettings, base: Space) -> None:
        super().__init__(network, settings, base)
        self.needs_images = self._own.has_teacher

    @classmethod
    def build_network(cls, settings: FitSettings, base: Space) -> ADCNetwork:
        assert isinstance(settings, ADCSettings) and isinstance(base, Base)
        network = ADCNetwork(base.unet, settings.model, has_teacher=settings.has_teacher)
        for part in (network.student, network.teacher):
            part.gradient_checkpointing = settings.train.gradient_checkpointing
        return network

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        """The student, in the files of ControlNet; the teacher is left in the last checkpoint."""
        return {"control": self.network.student.control, "decoder": self.network.student.decoder}

    def condition(self, given: Mapping[str, Tensor]) -> Condition:
        return (self.network.student.hint(given["mask"]),)

    def predict(self, zt: Tensor, t: Tensor, c_text: Tensor, condition: Condition) -> Tensor:
        """Prediction of the student."""
        net = self.network.student
        c_m = net.controls(zt, t, c_text, condition[0])
        return net.predict(net.encode(zt, t, c_text), c_text, c_m)

    def terms(self, step: int, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Student, teacher, and the student towards the (detached) teacher.

        Unlike in Siamese-Diffusion the mask's controls stay attached in the teacher's mix, and no
        weight ramps up.
        """
        own, student, teacher = self._own, self.network.student, self.network.teacher
        t, c_text, eps = batch["t"], batch["c_text"], batch["eps"]
        zt = add_noise(batch["z0"], eps, batch["alpha_bar_t"])
        encoded = student.encode(zt, t, c_text)
        c_m = student.controls(zt, t, c_text, student.hint(batch["mask"]))
        eps_s = student.predict(encoded, c_text, c_m)
        terms = {"loss/mask": denoising_loss(eps_s, eps)}
        if not own.has_teacher:
            return terms
        c_i = teacher.controls(zt, t, c_text, teacher.hint(batch["image"]))
        c_mix = tuple(m + own.image_weight * i for m, i in zip(c_m, c_i, strict=True))
        eps_t = teacher.predict(encoded, c_text, c_mix)
        if own.teacher_weight > 0:
            terms["loss/teacher"] = own.teacher_weight * denoising_loss(eps_t, eps)
        if own.distill_weight > 0:
            weights = area_weights(latent_mask(batch["mask"], zt.shape[-2:], own.pooling))
            distilled = weighted_mse(eps_s, eps_t.detach(), weights)
            terms["loss/distill"] = own.distill_weight * distilled
        return terms

    @property
    def _own(self) -> ADCSettings:
        assert isinstance(self.settings, ADCSettings)
        return self.settings


def latent_mask(
    mask: Tensor, size: tuple[int, ...], pooling: Literal["nearest", "max"] = "nearest"
) -> Tensor:
    """A mask (B, 3, H, W) in {0, 1} at latent size, (B, 1, h, w) in {0, 1}."""
    lesion = mask[:, :1]
    if pooling == "max":
        return F.adaptive_max_pool2d(lesion, size)
    return F.interpolate(lesion, size=size, mode="nearest")
