"""A diffusers ControlNet whose hint input is the Dense Hint Input; travels with exported models.

An export puts this file and `dense_hint.py` beside the weights, so that diffusers loads them
without the package siamese-diffusion. Both depend on torch and diffusers alone.
"""

from __future__ import annotations

from functools import wraps
from typing import Any

from diffusers import ControlNetModel

from siamese_diffusion.models.dense_hint import DenseHintInput


class SiameseControlNetModel(ControlNetModel):  # type: ignore[misc]
    """The trained control branch of Siamese-Diffusion, for `StableDiffusionControlNetPipeline`.

    Differs from its parent in one module: `controlnet_cond_embedding` is the Dense Hint Input
    (Siamese-Diffusion, CVPR 2025, Sec. 3.4), and `conditioning_embedding_out_channels` holds its
    five widths. The conditioning picture is the mask as three equal channels in {0, 1}.
    """

    # diffusers reads the signature to know which entries of config.json belong to the class
    @wraps(ControlNetModel.__init__)  # type: ignore[misc]
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.controlnet_cond_embedding = DenseHintInput(
            self.config["block_out_channels"][0],
            tuple(self.config["conditioning_embedding_out_channels"]),
        )
