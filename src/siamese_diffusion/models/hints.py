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


def build_hint(settings: ModelSettings, first_width: int) -> nn.Module:
    """A fresh hint input whose last convolution is zero: it adds nothing before training."""
    widths = hint_widths(settings, first_width)
    if settings.hint == "dense":
        return DenseHintInput(first_width, widths)
    hint: nn.Module = ControlNetConditioningEmbedding(first_width, block_out_channels=widths)
    return hint
