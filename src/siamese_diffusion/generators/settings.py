"""Settings of whole runs and their presets; free of torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from siamese_diffusion.core.config import Settings
from siamese_diffusion.data.settings import DataSettings
from siamese_diffusion.models.settings import ModelSettings, SmallBaseSettings
from siamese_diffusion.objectives.settings import SiameseSettings
from siamese_diffusion.training.settings import TrainSettings

# What images are that were sampled from real ones, for manifest and PNG text.
CLOSE_COPY = "close copy of a real image"
COPY = "copy of a real image"


class PreviewSettings(Settings):
    """The sample grids and validation losses of a training."""

    pairs: int = Field(6, ge=1, le=64)
    """Masks in the sample grid."""
    steps: int = Field(50, ge=1, le=1000)
    """DDIM steps of the grid."""
    guidance_scale: float = 9.0
    seed: int = 0
    validation_split: str = "val"
    """Split list for grid and validation loss, if the folder has it; else the training pairs."""
    validation_pairs: int = Field(16, ge=1)
    """Pairs in the validation loss, each at five fixed timesteps."""


class FitSettings(Settings):
    """What every generator's run needs."""

    generator: str = "siamese"
    """Name in the table of generators."""
    data: DataSettings = DataSettings()
    train: TrainSettings = TrainSettings()
    preview: PreviewSettings = PreviewSettings()
    timestep_sampling: Literal["uniform", "cubic"] = "uniform"
    """Density of the training timesteps; `cubic` favours noisy ones (T2I-Adapter)."""


class SiameseFitSettings(FitSettings):
    """A run of the paper's method."""

    model: ModelSettings = ModelSettings()
    objective: SiameseSettings = SiameseSettings()


# Named starting points for `fit`, joined by commas where several are wanted; every key can still be
# overridden. `paper` is Sec. 4.2 of the paper (all defaults of the generator); the paper trains
# 1,500 iterations on sets of about 300 images.
PRESETS: dict[str, dict[str, object]] = {
    "paper": {},
    "small": {
        "data": {"size": 128},
        "train": {
            "steps": 1000,
            "batch_size": 16,
            "learning_rate": 2e-4,
            "warmup_steps": 20,
            "checkpoint_every": 100,
            "validate_every": 100,
            "sample_every": 200,
        },
        "preview": {"steps": 25, "guidance_scale": 2.0},
    },
}


def _ablation(*, dense: bool = False, online: bool = False, w_c: float = 0.0) -> dict[str, object]:
    """A row of Table 5. L_i is on where a component rests on Image-Diffusion; the paper is silent.

    Without L_i nothing would train the image's path, and eps^mix would be no anchor.
    """
    return {
        "model": {"hint": "dense" if dense else "sparse"},
        "objective": {
            "image_pass": online or w_c > 0,
            "consistency_weight": w_c,
            "online_augment": online,
        },
    }


# ArSDM, trained from scratch, has to be cut to what it is tried on.
PRESETS |= {
    "arsdm-small": {"model": {"width": 128}},
    "arsdm-tiny": {"model": {"width": 64}},
    "arsdm-cpu": {
        "model": {
            "width": 32,
            "multipliers": [1, 2, 3, 4],
            "blocks": 1,
            "attention_factors": [8],
            "head_channels": 32,
        },
        "preview": {"steps": 25, "guidance_scale": 1.0},
    },
}

# What ADC's release really trains: both of the teacher's terms have weight zero there.
PRESETS["adc-released"] = {
    "teacher_weight": 0.0,
    "distill_weight": 0.0,
    "image_weight": 0.25,
    "train": {"batch_size": 32},
}

# The eight settings of Table 5: Dense Hint Input x Online-Augmentation x L_c. Which of 5 to 7 is
# which follows from Sec. 5.3.1 (6 has Online-Augmentation, 7 has L_c, both with DHI).
PRESETS |= {
    "table5-1": _ablation(),
    "table5-2": _ablation(dense=True),
    "table5-3": _ablation(online=True),
    "table5-4": _ablation(w_c=1.0),
    "table5-5": _ablation(online=True, w_c=1.0),
    "table5-6": _ablation(dense=True, online=True),
    "table5-7": _ablation(dense=True, w_c=1.0),
    "table5-ours": _ablation(dense=True, online=True, w_c=1.0),
}


class PretrainSettings(Settings):
    """`siamdiff pretrain`: a small base from images alone."""

    size: int = Field(128, ge=32)
    """Image size in pixels, a multiple of 32."""
    prompt: str | None = None
    empty_prompt_probability: float = Field(0.1, ge=0, le=1)
    hold_out: float = Field(0.04, gt=0, lt=0.5)
    """Share of the images kept for the reconstruction PSNR."""
    flips: bool = True
    """Mirror images left to right for the denoiser, in both directions for the autoencoder."""
    edge_weight: float = Field(0.5, ge=0)
    kl_weight: float = Field(1e-4, ge=0)
    whiten: bool | None = None
    """Give the latents' channels equal spread, at no cost in reconstruction; None does so for an
    autoencoder trained here and leaves a given one as it is."""
    save_dtype: Literal["fp16", "fp32"] = "fp16"
    architecture: SmallBaseSettings = SmallBaseSettings(
        autoencoder_widths=(16, 32, 64, 96), unet_widths=(64, 128, 144), unet_layers=1
    )
    autoencoder: TrainSettings = TrainSettings(
        steps=1600,
        batch_size=8,
        learning_rate=1e-3,
        weight_decay=0,
        warmup_steps=50,
        decay="cosine",
        max_gradient_norm=1.0,
        precision="auto",
        ema_decay=0.995,
        seed=0,
        checkpoint_every=200,
        keep_checkpoints=1,
        validate_every=200,
        sample_every=0,
    )
    denoiser: TrainSettings = TrainSettings(
        steps=2400,
        batch_size=32,
        learning_rate=5e-4,
        weight_decay=1e-2,
        warmup_steps=100,
        decay="cosine",
        max_gradient_norm=1.0,
        precision="auto",
        ema_decay=0.998,
        seed=0,
        checkpoint_every=200,
        keep_checkpoints=1,
        validate_every=0,
        sample_every=0,
    )

    @field_validator("size")
    @classmethod
    def _size_divides(cls, value: int) -> int:
        if value % 32:
            raise ValueError(f"must be a multiple of 32; the next is {-(-value // 32) * 32}")
        return value
