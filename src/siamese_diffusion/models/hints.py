"""The table of hint inputs by name, and their widths for a given base."""

from __future__ import annotations

from diffusers.models.controlnets.controlnet import ControlNetConditioningEmbedding
from torch import nn

from siamese_diffusion.models.dense_hint import DenseHintInput
from siamese_diffusion.models.settings import (
    DENSE_WIDTHS,
    SPARSE_WIDTHS,
    ModelSettings,
    scaled_widths,
)


def hint_widths(settings: ModelSettings, first_width: int) -> tuple[int, ...]:
    """The widths asked for, or the paper's scaled to the base's first width."""
    if settings.hint_widths is not None:
        return settings.hint_widths
    full = DENSE_WIDTHS if settings.hint == "dense" else SPARSE_WIDTHS
    return scaled_widths(full, first_width)


def build_hint(settings: ModelSettings, first_width: int, *, channels: int = 3) -> nn.Module:
    """A fresh hint input whose last convolution is zero: it adds nothing before training.

    Args:
        settings: Which one, and its widths.
        first_width: Output channels.
        channels: Input channels, 3 for a mask or an image, 6 for both on top of each other.
    """
    widths = hint_widths(settings, first_width)
    if settings.hint == "dense":
        return DenseHintInput(first_width, widths, channels=channels)
    hint: nn.Module = ControlNetConditioningEmbedding(
        first_width, conditioning_channels=channels, block_out_channels=widths
    )
    return hint
