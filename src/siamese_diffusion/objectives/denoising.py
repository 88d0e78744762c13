"""The denoising loss, Eq. (3) and (4), shared by every diffusion method."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def denoising_loss(prediction: Tensor, eps: Tensor) -> Tensor:
    """Eq. (4): mean squared error of a noise prediction over batch and elements, float32 scalar.

    Args:
        prediction: eps_theta(zt, t, c_text, c_f), (B, C, h, w); gradient flows.
        eps: True noise, same shape.
    """
    return F.mse_loss(prediction.float(), eps.float())
