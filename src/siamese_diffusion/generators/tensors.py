"""What training needs of a data set, computed once and kept under its content's hash.

Pixels at the training size, latent posterior moments and prompt embeddings: text encoder and
autoencoder then never run in the training loop. The posterior is still re-sampled at every step.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from siamese_diffusion.core.artifacts import (
    make_folder,
    remove_leftovers,
    require_free_space,
    text_sha256,
)
from siamese_diffusion.core.progress import ProgressBar
from siamese_diffusion.core.weights import store_tensors
from siamese_diffusion.data.pairs import PairFolder, load_arrays
from siamese_diffusion.models.latents import encode_moments
from siamese_diffusion.models.pixels import PixelSpace, Space

_BATCH = 8


@dataclass(frozen=True)
class PairTensors:
    """One data set at training size, on the CPU.

    Attributes:
        image: (N, 3, S, S) uint8.
        mask: (N, S, S) uint8 {0, 255}.
        mean, std: Moments of the scaled latents, (N, C, S/8, S/8) float32; empty in pixel space,
            where the image itself is what is diffused.
        context: Embeddings of the distinct prompts, (P, L, D) float32; the first is the empty one.
        prompt: Row of `context` for each pair, (N,) long.
    """

    image: Tensor
    mask: Tensor
    mean: Tensor
    std: Tensor
    context: Tensor
    prompt: Tensor

    def __len__(self) -> int:
        return len(self.mask)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one clean sample, (C, h, w)."""
        return tuple((self.mean if self.mean.numel() else self.image).shape[1:])

    def z0(self, rows: list[int], posterior: Tensor) -> Tensor:
        """Clean samples of some rows, (B, C, h, w); `posterior` is standard normal."""
        if self.mean.numel():
            return self.mean[rows] + self.std[rows] * posterior
        return self.image[rows].float() / 127.5 - 1


def pair_tensors(
    base: Space,
    folder: PairFolder,
    *,
    size: int,
    cache: Path,
    device: torch.device,
    base_sha256: str,
    quiet: bool = False,
) -> PairTensors:
    """Load from `cache`, or compute and store there; the key covers data, base and size."""
    key = text_sha256(f"{folder.fingerprint()} {base_sha256} {size}")[:24]
    path = cache / f"pairs-{key}.safetensors"
    if path.exists():
        try:
            return PairTensors(**load_file(path))
        except (SafetensorError, TypeError):  # torn, or with other fields: it is only a cache
            path.unlink()
    tensors = _compute(base, folder, size=size, device=device, quiet=quiet)
    fields = {name: getattr(tensors, name) for name in PairTensors.__dataclass_fields__}
    require_free_space(cache, sum(t.numel() * t.element_size() for t in fields.values()))
    make_folder(cache)
    remove_leftovers(cache)
    store_tensors(path, fields)
    return tensors


@torch.no_grad()
def _compute(
    base: Space, folder: PairFolder, *, size: int, device: torch.device, quiet: bool
) -> PairTensors:
    images, masks = load_arrays(folder, size)
    assert images is not None and masks is not None
    image = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    prompts = ["", *sorted({pair.prompt for pair in folder.pairs} - {""})]
    context = base.embed(prompts).cpu()
    mean, std = _moments(base, image, device=device, quiet=quiet)
    return PairTensors(
        image=image,
        mask=torch.from_numpy(masks),
        mean=mean,
        std=std,
        context=context.contiguous(),
        prompt=torch.tensor([prompts.index(pair.prompt) for pair in folder.pairs]),
    )


def _moments(
    base: Space, image: Tensor, *, device: torch.device, quiet: bool
) -> tuple[Tensor, Tensor]:
    if isinstance(base, PixelSpace):
        return torch.empty(0), torch.empty(0)
    base.vae.to(device)
    means, stds = [], []
    with ProgressBar("latents", len(image), enabled=not quiet) as bar:
        for start in range(0, len(image), _BATCH):
            batch = image[start : start + _BATCH].to(device).float() / 127.5 - 1
            mean, std = encode_moments(base.vae, batch)
            means.append(mean.float().cpu())
            stds.append(std.float().cpu())
            bar.advance_to(min(start + _BATCH, len(image)))
    return torch.cat(means).contiguous(), torch.cat(stds).contiguous()
