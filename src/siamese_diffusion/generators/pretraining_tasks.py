"""The two trainings behind `siamdiff pretrain`: an autoencoder and a denoiser on its latents."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from PIL import Image
from torch import Tensor, nn

from siamese_diffusion.core.artifacts import atomic_write_bytes
from siamese_diffusion.core.folders import RunPaths
from siamese_diffusion.core.seeding import derive_seed, generator, normal
from siamese_diffusion.data.images import encode_png
from siamese_diffusion.data.order import sample_order
from siamese_diffusion.diffusion.schedule import add_noise
from siamese_diffusion.generators.model_card import paint_grid, tile
from siamese_diffusion.models.base import Autoencoder, Base
from siamese_diffusion.models.latents import decode, encode_moments, to_uint8
from siamese_diffusion.objectives.autoencoding import (
    edge_loss,
    posterior_divergence,
    psnr,
    reconstruction_loss,
)
from siamese_diffusion.objectives.denoising import denoising_loss
from siamese_diffusion.training.settings import TrainSettings
from siamese_diffusion.training.trainer import channels_last

_SHOWN = 6  # held-out images in a grid


def to_model(images: np.ndarray) -> Tensor:
    """(B, H, W, 3) uint8 to (B, 3, H, W) float32 in [-1, 1]."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1


class AutoencoderObjective(nn.Module):
    """Reconstruction, edges, and a small pull of the latents towards a standard normal."""

    def __init__(self, vae: Autoencoder, *, edge_weight: float, kl_weight: float) -> None:
        super().__init__()
        self.vae = vae
        self.edge_weight = edge_weight
        self.kl_weight = kl_weight

    def forward(self, step: int, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        posterior = self.vae.encode(batch["image"]).latent_dist
        z = posterior.mean + posterior.std * batch["noise"]
        reconstruction = self.vae.decode(z).sample
        image = batch["image"]
        return {
            "loss/reconstruction": reconstruction_loss(reconstruction, image),
            "loss/edge": self.edge_weight * edge_loss(reconstruction, image),
            "loss/kl": self.kl_weight * posterior_divergence(posterior.mean, posterior.logvar),
        }


class AutoencoderTask:
    """Trains the autoencoder on random flips of the images.

    Args:
        images: (N, S, S, 3) uint8 to train on.
        held_out: (M, S, S, 3) uint8 for the PSNR.
        folder: For grids of held-out images above their reconstructions.
        train: Of its training; pictures are laid out as the trainer lays out the weights.
    """

    def __init__(
        self,
        base: Base,
        images: np.ndarray,
        held_out: np.ndarray,
        *,
        folder: Path,
        train: TrainSettings,
        edge_weight: float,
        kl_weight: float,
        flips: bool,
    ) -> None:
        base.vae.requires_grad_(True).train()
        self.objective: nn.Module = AutoencoderObjective(
            base.vae, edge_weight=edge_weight, kl_weight=kl_weight
        )
        self._vae = base.vae
        self._images = images
        self._held_out = held_out
        self._folder = folder
        self._train = train
        self._batch_size = train.batch_size
        self._seed = train.seed
        self._flips = flips

    def trained_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        named: Iterator[tuple[str, nn.Parameter]] = self._vae.named_parameters()
        return named

    def batch(self, step: int, positions: Sequence[int], device: torch.device) -> dict[str, Tensor]:
        rows = sample_order(
            self._seed, step, positions, n=len(self._images), batch_size=self._batch_size
        )
        pictures, noises = [], []
        channels, side = int(self._vae.config["latent_channels"]), self._images.shape[1] // 8
        for position, row in zip(positions, rows, strict=True):
            flips = derive_seed(self._seed, "flip", step, position) if self._flips else 0
            picture = self._images[row]
            picture = picture[:, ::-1] if flips & 1 else picture
            pictures.append(picture[::-1] if flips & 2 else picture)
            noises.append(normal((channels, side, side), self._seed, "posterior", step, position))
        innermost = channels_last(self._train, device)
        layout = torch.channels_last if innermost else torch.contiguous_format
        image = to_model(np.stack(pictures)).to(device, memory_format=layout)
        return {"image": image, "noise": torch.stack(noises).to(device)}

    @torch.no_grad()
    def validate(self, device: torch.device) -> Mapping[str, float]:
        return {"psnr": mean_psnr(self._vae, self._held_out, device)}

    @torch.no_grad()
    def sample(self, step: int, device: torch.device) -> Mapping[str, object]:
        """Write the first held-out images above their reconstructions."""
        shown = self._held_out[:_SHOWN]
        mean, _ = encode_moments(self._vae, to_model(shown).to(device))
        drawn = to_uint8(decode(self._vae, mean)).cpu().numpy()
        return store_grid(tile(np.concatenate([shown, drawn]), len(shown)), self._folder, step)


@torch.no_grad()
def mean_psnr(vae: Autoencoder, images: np.ndarray, device: torch.device) -> float:
    """Mean reconstruction PSNR in dB over (N, S, S, 3) uint8, decoding the posterior's mean."""
    values = []
    for start in range(0, len(images), 16):
        image = to_model(images[start : start + 16]).to(device)
        mean, _ = encode_moments(vae, image)
        decoded = vae.decode(mean / float(vae.config["scaling_factor"])).sample
        values.append(psnr(decoded.clamp(-1, 1), image))
    return float(torch.cat(values).mean())


class DenoiserObjective(nn.Module):
    """Eq. (4) without control."""

    def __init__(self, unet: UNet2DConditionModel) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, step: int, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        zt = add_noise(batch["z0"], batch["eps"], batch["alpha_bar_t"])
        prediction = self.unet(zt, batch["t"], batch["c_text"]).sample
        return {"loss/denoising": denoising_loss(prediction, batch["eps"])}


class DenoiserTask:
    """Trains the U-Net on cached latent moments.

    Args:
        mean, std: (N, C, h, w), scaled to unit variance.
        c_text: Embeddings of the prompt and of the empty prompt, (2, L, D).
        prompt: That prompt, for grids of samples.
        folder: For these grids.
    """

    def __init__(
        self,
        base: Base,
        mean: Tensor,
        std: Tensor,
        c_text: Tensor,
        *,
        prompt: str,
        folder: Path,
        batch_size: int,
        seed: int,
        empty_prompt_probability: float,
    ) -> None:
        base.unet.requires_grad_(True).train()
        self.objective: nn.Module = DenoiserObjective(base.unet)
        self._base, self._prompt, self._folder = base, prompt, folder
        self._unet = base.unet
        self._mean, self._std, self._c_text = mean, std, c_text
        self._alpha_bar = base.scheduler.alphas_cumprod.float()
        self._batch_size = batch_size
        self._seed = seed
        self._empty = empty_prompt_probability

    def trained_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        named: Iterator[tuple[str, nn.Parameter]] = self._unet.named_parameters()
        return named

    def batch(self, step: int, positions: Sequence[int], device: torch.device) -> dict[str, Tensor]:
        rows = sample_order(
            self._seed, step, positions, n=len(self._mean), batch_size=self._batch_size
        )
        shape = tuple(self._mean.shape[1:])
        posterior, eps, times, empty = [], [], [], []
        for position in positions:
            stream = generator(self._seed, "denoiser", step, position)
            posterior.append(torch.randn(shape, generator=stream))
            eps.append(torch.randn(shape, generator=stream))
            times.append(torch.randint(len(self._alpha_bar), (), generator=stream))
            empty.append(int(torch.rand((), generator=stream) < self._empty))
        t = torch.stack(times)
        batch = {
            "z0": self._mean[rows] + self._std[rows] * torch.stack(posterior),
            "eps": torch.stack(eps),
            "t": t,
            "alpha_bar_t": self._alpha_bar[t],
            "c_text": self._c_text[empty],
        }
        return {name: value.to(device) for name, value in batch.items()}

    def validate(self, device: torch.device) -> Mapping[str, float]:
        return {}

    def sample(self, step: int, device: torch.device) -> Mapping[str, object]:
        """Write samples at fixed seeds, as in the finished base's card."""
        picture = paint_grid(self._base, self._prompt, seed=self._seed)
        return store_grid(picture, self._folder, step)


def store_grid(picture: Image.Image, folder: Path, step: int) -> Mapping[str, object]:
    """Write the grid of a step; what to log of it."""
    path = RunPaths(folder).sample_grid(step)
    atomic_write_bytes(path, encode_png(picture))
    return {"file": f"{path.parent.name}/{path.name}"}
