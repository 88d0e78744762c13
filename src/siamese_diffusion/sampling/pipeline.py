"""Masks to images with a trained generator. No argument of the public pipeline takes an image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from siamese_diffusion.core.errors import ConfigError, DataError
from siamese_diffusion.core.seeding import normal
from siamese_diffusion.data.images import Levels, read_levels, resize_mask
from siamese_diffusion.data.masks import binarise, detect_rule
from siamese_diffusion.diffusion.sampler import PAPER, Sampler
from siamese_diffusion.generators.base import Control, draw, move
from siamese_diffusion.generators.run_folder import LoadedRun, load_run
from siamese_diffusion.models.latents import to_uint8
from siamese_diffusion.models.pixels import place_decoder, sample_shape, to_images
from siamese_diffusion.sampling.settings import (
    GUIDANCE_SCALE,
    MAX_STEPS,
    STEPS,
    Precision,
    require_possible_sampler,
)
from siamese_diffusion.training.processes import choose_device

Mask = np.ndarray | Image.Image | Path | str


_DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}


class LoadedPipeline:
    """A trained generator on a device; what every pipeline shares.

    An image depends on the weights, its mask, prompt, settings and its own seed, not on batch
    size or order: on the CPU in float32 up to about 1e-5 of a latent (at most one grey level,
    rarely), bit for bit with `exact=True`.

    Attributes:
        size: Side of the images in pixels.
        prompt: The prompt of the training set.
        model_sha256: Identity of base and trained weights.
        run: The run folder.
    """

    control: ClassVar[Control] = "mask"

    def __init__(
        self, loaded: LoadedRun, *, device: torch.device, dtype: torch.dtype | None = None
    ) -> None:
        if loaded.generator.control != self.control:
            raise ConfigError(
                f"run '{loaded.paths.root}' ('{loaded.info.generator}') samples from "
                f"{loaded.generator.control}, {type(self).__name__} from {self.control}",
                hint="`siamdiff sample` picks the right one; from Python, "
                "sampling.pair_pipeline.PairPipeline takes masks and images",
            )
        self._loaded = loaded
        self._device = device
        self._dtype = dtype or torch.float32
        self.size = loaded.info.size
        self.prompt = loaded.info.prompt
        self.model_sha256 = str(loaded.info.model_sha256)
        self.run = loaded.paths.root
        self._embedded: dict[str, Tensor] = {}
        move(loaded.generator, device, self._dtype)
        place_decoder(loaded.base, device)

    @classmethod
    def from_pretrained(
        cls,
        run: str | Path,
        *,
        base: str | None = None,
        device: str | None = None,
        dtype: torch.dtype | None = None,
    ) -> Self:
        """Load a run folder written by `fit` or by an import.

        Args:
            run: The run folder.
            base: Where the base is now, if it has moved.
            device: "cpu" or "cuda"; None takes what is there.
            dtype: Precision of the denoiser; None is float32.

        Raises:
            ConfigError: If there is no such device.
            OutputError: If the folder is no finished run.
            WeightsError: If base or weights do not fit.
        """
        where = choose_device(device)
        return cls(load_run(Path(run), base=base), device=where, dtype=dtype)

    def _batch(
        self,
        masks: Sequence[np.ndarray],
        seeds: Sequence[int],
        prompts: Sequence[str],
        steps: int,
        guidance_scale: float,
        images: Sequence[np.ndarray] | None = None,
        sampler: Sampler = PAPER,
    ) -> list[Image.Image]:
        """Images of one batch; `images` are RGB uint8 of the model's size, for `FromPairs`."""
        base, device, dtype = self._loaded.base, self._device, self._dtype
        shape = sample_shape(base, self.size)
        noise = torch.stack([normal(shape, seed, "sample") for seed in seeds])
        hint = torch.from_numpy(np.stack(masks) > 127).float().unsqueeze(1).expand(-1, 3, -1, -1)
        with torch.autocast(device.type, enabled=False):
            latents = draw(
                self._loaded.generator,
                hint.contiguous().to(device, dtype),
                None if images is None else _as_hint(images).to(device, dtype),
                torch.stack([self._embed(p) for p in prompts]).to(device, dtype),
                self._embed("").expand(len(seeds), -1, -1).to(device, dtype),
                noise.to(device, dtype),
                steps=steps,
                guidance_scale=guidance_scale,
                sampler=sampler,
            )
            drawn = to_images(base, latents.float())
        return [Image.fromarray(image) for image in to_uint8(drawn).numpy()]

    def _embed(self, prompt: str) -> Tensor:
        if prompt not in self._embedded:
            self._embedded[prompt] = self._loaded.base.embed([prompt])[0].cpu()
        return self._embedded[prompt]

    def _mask(self, mask: Mask) -> np.ndarray:
        """Any binary mask as uint8 {0, 255} of the model's size."""
        if isinstance(mask, Path | str):
            return self._binary(read_levels(Path(mask)), str(mask))
        if isinstance(mask, Image.Image):
            # Pillow would clip deep grey when it becomes 8 bit.
            is_deep = mask.mode in ("I", "F") or mask.mode.startswith("I;16")
            mask = np.asarray(mask if is_deep else mask.convert("L"))
        return self._binary(_levels(mask), "a given mask")

    def _binary(self, levels: Levels, name: str) -> np.ndarray:
        rule = detect_rule([(name, levels)])
        return resize_mask(binarise(levels, rule), self.size)


class SiameseDiffusionPipeline(LoadedPipeline):
    """Samples images for masks; see `LoadedPipeline` for attributes and what an image depends on.

    It serves every generator that is controlled by masks alone. No argument takes an image.
    """

    @torch.no_grad()
    def __call__(
        self,
        masks: Sequence[Mask],
        seeds: Sequence[int],
        *,
        prompts: Sequence[str] | None = None,
        steps: int = STEPS,
        guidance_scale: float = GUIDANCE_SCALE,
        batch_size: int | None = None,
        exact: bool = False,
        sampler: Sampler = PAPER,
    ) -> list[Image.Image]:
        """One image per mask.

        Args:
            masks: Arrays (H, W) or pictures, {0, 255} or any binary mask; resized (nearest) to
                `size`.
            seeds: One per mask.
            prompts: One per mask; None takes the training prompt.
            steps: Predictions of the sampler.
            guidance_scale: Classifier-free guidance; the paper's is 9.
            batch_size: Masks denoised together; None takes all.
            exact: Denoise one mask at a time.
            sampler: Solver, and at which timesteps guidance acts; by default the paper's.

        Returns:
            RGB images of `size` x `size`.

        Raises:
            ConfigError: If `steps`, `batch_size` or `sampler` is impossible.
            DataError: If the numbers of masks, seeds and prompts differ, or a mask is no mask.
        """
        require_possible(steps, batch_size, sampler)
        chosen = list(prompts) if prompts is not None else [self.prompt] * len(masks)
        if not len(masks) == len(seeds) == len(chosen):
            raise DataError(
                f"{len(masks)} masks, {len(seeds)} seeds and {len(chosen)} prompts were given; "
                "give one seed (and one prompt) per mask"
            )
        arrays = [self._mask(mask) for mask in masks]
        width = 1 if exact else (batch_size or max(1, len(arrays)))
        images: list[Image.Image] = []
        for start in range(0, len(arrays), width):
            part = slice(start, start + width)
            images += self._batch(
                arrays[part],
                list(seeds[part]),
                chosen[part],
                steps,
                guidance_scale,
                sampler=sampler,
            )
        return images


def require_possible(steps: int, batch_size: int | None, sampler: Sampler = PAPER) -> None:
    """Refuse numbers of steps or images, and samplers, that cannot be.

    Raises:
        ConfigError: Naming the number and its limits.
    """
    for name, value, most in (("steps", steps, MAX_STEPS), ("batch_size", batch_size, None)):
        if value is not None and (value < 1 or (most is not None and value > most)):
            limit = f"between 1 and {most}" if most else "1 or more"
            raise ConfigError(f"{name} {value} is impossible; it must be {limit}")
    try:
        require_possible_sampler(sampler, steps)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _levels(array: np.ndarray) -> Levels:
    """Numbers of any type as grey levels of 8 or 16 bit; booleans become 0 and 255."""
    if array.ndim != 2 or not array.size:
        raise DataError(f"a given mask has shape {array.shape}; a mask is (height, width)")
    if array.dtype == bool:
        return array.astype(np.uint8) * np.uint8(255)
    lowest, highest = array.min(), array.max()
    if not 0 <= lowest <= highest <= 65535 or not np.array_equal(array, np.round(array)):
        raise DataError(
            f"a given mask holds values from {lowest:g} to {highest:g}; whole numbers from 0 to "
            "65535 are allowed",
            hint="give booleans, or 0 for background and 255 for foreground",
        )
    if array.dtype == np.uint16 or highest > 255:
        return array.astype(np.uint16)
    return array.astype(np.uint8)


def _as_hint(images: Sequence[np.ndarray]) -> Tensor:
    """RGB uint8 pictures (H, W, 3) to (B, 3, H, W) float32 in [0, 1]."""
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255


def denoiser_dtype(precision: Precision) -> torch.dtype:
    """The number type of a precision's name."""
    return _DTYPES[precision]
