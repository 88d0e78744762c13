"""Weights that balance lesion and background by area, of ArSDM (MICCAI 2023) and of ADC."""

from __future__ import annotations

from torch import Tensor


def area_weights(mask: Tensor) -> Tensor:
    """Weights 1 - r on the lesion and r on the background, r the lesion's share of the picture.

    Lesion and background each weigh r (1 - r) in the mean. Without a lesion (r = 0) and for a
    full mask (r = 1) every weight is zero: such a picture teaches nothing.

    Args:
        mask: (B, 1, H, W) in {0, 1}.

    Returns:
        (B, 1, H, W) float32.
    """
    m = mask.float()
    r = m.mean((1, 2, 3), keepdim=True)
    return m * (1 - r) + (1 - m) * r


def weighted_l1(prediction: Tensor, eps: Tensor, weights: Tensor) -> Tensor:
    """Mean of weights |prediction - eps| over batch and elements, float32 scalar.

    Args:
        prediction: (B, C, H, W); gradient flows.
        eps: True noise, same shape.
        weights: (B, 1, H, W), for all channels.
    """
    return (weights * (prediction.float() - eps.float()).abs()).mean()


def weighted_mse(prediction: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Mean of weights (prediction - target)^2, else as `weighted_l1`."""
    return (weights * (prediction.float() - target.float()).square()).mean()
