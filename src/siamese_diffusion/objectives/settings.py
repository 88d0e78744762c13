"""Settings of the siamese objective; free of torch."""

from __future__ import annotations

from pydantic import Field

from siamese_diffusion.core.config import Settings


class SiameseSettings(Settings):
    """Weights, thresholds and switches of Eq. (5)-(13); defaults are the paper's (Sec. 4.2).

    With `image_pass` and `online_augment` off and `consistency_weight` 0 this is ControlNet.
    """

    mask_weight: float = Field(1.0, ge=0)
    """w_m of Eq. (5)."""
    consistency_weight: float = Field(1.0, ge=0)
    """w_c of Eq. (9), studied in Table 6."""
    image_pass: bool = True
    """Compute L_i, Eq. (8). Without it only what L_c or L_m' needs of Image-Diffusion is run."""
    online_augment: bool = True
    """Online-Augmentation, Eq. (11)-(13)."""
    augment_start_fraction: float = Field(1 / 3, ge=0, le=1)
    """K_tau / N_iter of Eq. (13)."""
    augment_below_timestep: int = Field(200, ge=0, le=1000)
    """T_tau of Eq. (13), exclusive as printed; 201 reproduces the release."""
    image_loss_trains_decoder: bool = False
    """Let L_i update the decoder too; off as in the release, open in the paper."""
