"""Masks and their images to close copies, for generators that are controlled by both.

Apart from `pipeline.py` on purpose: what samples from masks alone has no way to an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from siamese_diffusion.core.errors import ConfigError, DataError
from siamese_diffusion.data.images import read_image, resize_image
from siamese_diffusion.diffusion.sampler import PAPER, Sampler
from siamese_diffusion.sampling.pipeline import LoadedPipeline, Mask, require_possible
from siamese_diffusion.sampling.settings import GUIDANCE_SCALE, STEPS


class PairPipeline(LoadedPipeline):
    """Samples from masks and images; the results stay close to the images that were given."""

    control = "mask+image"

    @property
    def nature(self) -> str:
        """What its images are, for manifest and PNG text."""
        return self._loaded.generator.nature

    @torch.no_grad()
    def __call__(
        self,
        masks: Sequence[Mask],
        seeds: Sequence[int],
        *,
        images: Sequence[Mask] | None = None,
        prompts: Sequence[str] | None = None,
        steps: int = STEPS,
        guidance_scale: float = GUIDANCE_SCALE,
        batch_size: int | None = None,
        exact: bool = False,
        sampler: Sampler = PAPER,
    ) -> list[Image.Image]:
        """One image per mask and image; arguments as of `SiameseDiffusionPipeline`.

        Args:
            images: One per mask: RGB arrays (H, W, 3) uint8, pictures or paths; resized to `size`.

        Raises:
            ConfigError: If no images are given, or `steps` or `batch_size` is impossible.
            DataError: If the numbers differ, or a mask is no mask.
        """
        if images is None:
            raise ConfigError(
                f"run '{self.run}' samples from masks and images, but no images were given",
                hint="give one image per mask",
            )
        require_possible(steps, batch_size, sampler)
        chosen = list(prompts) if prompts is not None else [self.prompt] * len(masks)
        if not len(masks) == len(seeds) == len(chosen) == len(images):
            raise DataError(
                f"{len(masks)} masks, {len(images)} images, {len(seeds)} seeds and {len(chosen)} "
                "prompts were given; give one of each per mask"
            )
        arrays = [self._mask(mask) for mask in masks]
        pictures = [self._picture(image) for image in images]
        width = 1 if exact else (batch_size or max(1, len(arrays)))
        drawn: list[Image.Image] = []
        for start in range(0, len(arrays), width):
            part = slice(start, start + width)
            drawn += self._batch(
                arrays[part],
                list(seeds[part]),
                chosen[part],
                steps,
                guidance_scale,
                images=pictures[part],
                sampler=sampler,
            )
        return drawn

    def _picture(self, image: Mask) -> np.ndarray:
        """Any picture as RGB uint8 of the model's size."""
        if isinstance(image, Path | str):
            return resize_image(read_image(Path(image)), self.size)
        array = np.asarray(image.convert("RGB") if isinstance(image, Image.Image) else image)
        if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8:
            raise DataError(
                f"an image has shape {array.shape} and type {array.dtype}; "
                "(height, width, 3) of uint8 is needed"
            )
        return resize_image(array, self.size)
