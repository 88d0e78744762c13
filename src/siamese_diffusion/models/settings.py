"""Settings of the networks; free of torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from siamese_diffusion.core.config import Settings

# Widths of the Dense Hint Input at Stable Diffusion 1.5's size (paper, Sec. 3.4).
DENSE_WIDTHS = (16, 32, 64, 128, 256)
# Widths of ControlNet's hint input as released.
SPARSE_WIDTHS = (16, 32, 96, 256)
FULL_WIDTH = 320  # first width of the U-Net of Stable Diffusion 1.5


class ModelSettings(Settings):
    """The control branch and what of the U-Net is trained."""

    hint: Literal["dense", "sparse"] = "dense"
    """Hint input: the paper's Dense Hint Input, or ControlNet's."""
    hint_widths: tuple[int, ...] | None = None
    """Widths of the hint input; None scales the paper's with the base's first width."""
    hint_init: Literal["kaiming", "torch"] = "kaiming"
    """First weights of the hint input: Kaiming's without biases, or torch's defaults as in the
    release, under which masks hardly tell apart at small widths."""
    train_decoder: bool = True
    """Train the U-Net decoder as the paper does; False is stock ControlNet."""

    @model_validator(mode="after")
    def _widths_fit(self) -> ModelSettings:
        expected = len(DENSE_WIDTHS) if self.hint == "dense" else len(SPARSE_WIDTHS)
        if self.hint_widths is not None:
            if len(self.hint_widths) != expected:
                raise ValueError(
                    f"hint_widths needs {expected} widths for hint '{self.hint}', "
                    f"got {len(self.hint_widths)}"
                )
            if min(self.hint_widths) < 1:
                raise ValueError("hint_widths must be positive")
        return self


class SmallBaseSettings(Settings):
    """Architecture of a base trained by `siamdiff pretrain`; SD 1.5's classes at small width."""

    latent_channels: int = Field(4, ge=1)
    autoencoder_widths: tuple[int, ...] = (32, 48, 64, 96)
    """One width per autoencoder level; four levels give the factor 8 of SD 1.5."""
    autoencoder_layers: int = Field(1, ge=1)
    unet_widths: tuple[int, ...] = (64, 128, 192)
    """One width per U-Net level, each a multiple of 32."""
    unet_layers: int = Field(2, ge=1)
    attention_heads: int = Field(4, ge=1)
    text_width: int = Field(64, ge=8)
    text_layers: int = Field(2, ge=1)

    @model_validator(mode="after")
    def _shapes_fit(self) -> SmallBaseSettings:
        if len(self.autoencoder_widths) != 4:
            raise ValueError("autoencoder_widths needs four widths (factor 8, as SD 1.5)")
        for name in ("autoencoder_widths", "unet_widths"):
            for width in getattr(self, name):
                if width % 16:
                    raise ValueError(f"{name} must be multiples of 16, got {width}")
        return self


class SpadeUNetSettings(Settings):
    """ArSDM's U-Net; the defaults are the published ones, about 652 M parameters."""

    width: int = Field(256, ge=32)
    """Channels of the first level, a multiple of 32; 128 gives 188 M parameters, 64 gives 60 M."""
    multipliers: tuple[int, ...] = (1, 1, 2, 2, 4, 4)
    """Channels of each level, in first widths."""
    blocks: int = Field(2, ge=1)
    """Residual blocks a level on the way down; one more on the way up."""
    attention_factors: tuple[int, ...] = (8, 16, 32)
    """Levels with attention, by how much smaller than the image they are."""
    head_channels: int = Field(64, ge=1)

    @property
    def factor(self) -> int:
        """Image sides must be multiples of this."""
        return int(2 ** (len(self.multipliers) - 1))

    @model_validator(mode="after")
    def _widths_fit(self) -> SpadeUNetSettings:
        if not self.multipliers or min(self.multipliers) < 1:
            raise ValueError(f"multipliers must be positive, got {self.multipliers}")
        if self.width % 32:
            raise ValueError(f"width {self.width} is not a multiple of 32")
        for level, multiplier in enumerate(self.multipliers):
            wide = self.width * multiplier
            attended = 2**level in self.attention_factors or level == len(self.multipliers) - 1
            if attended and wide % self.head_channels:
                raise ValueError(
                    f"level {level} has {wide} channels, no multiple of head_channels "
                    f"{self.head_channels}"
                )
        return self


def scaled_widths(widths: tuple[int, ...], first_width: int) -> tuple[int, ...]:
    """Scale full-size hint widths to a base by the next power of two of the width ratio.

    At full width the DHI would cost more than a small U-Net (reference, section 5).
    """
    if first_width >= FULL_WIDTH:
        return widths
    ratio = 1.0
    while ratio / 2 >= first_width / FULL_WIDTH * 0.999:
        ratio /= 2
    return tuple(max(4, int(width * ratio)) for width in widths)
