"""A generator and its data as a training task: batches, validation losses, sample grids."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from siamese_diffusion.core.artifacts import atomic_write_bytes
from siamese_diffusion.core.folders import RunPaths
from siamese_diffusion.core.seeding import generator as stream
from siamese_diffusion.core.seeding import normal
from siamese_diffusion.data.images import encode_png
from siamese_diffusion.data.order import sample_order
from siamese_diffusion.diffusion.timesteps import draw_timestep
from siamese_diffusion.generators.base import Generator, draw
from siamese_diffusion.generators.model_card import tile
from siamese_diffusion.generators.settings import FitSettings
from siamese_diffusion.generators.tensors import PairTensors
from siamese_diffusion.models.latents import to_uint8
from siamese_diffusion.models.pixels import Space, place_decoder, to_images

VALIDATION_BINS = 5  # of 200 timesteps; the first is that of Online-Augmentation


class PairTask:
    """Draws everything random from (seed, step, position).

    Args:
        generator: The method.
        base: For the schedule, and to decode samples.
        pairs: What is trained on.
        preview: What grids and validation losses are made of.
        settings: The run's settings.
        paths: Where grids go.
    """

    def __init__(
        self,
        generator: Generator,
        base: Space,
        pairs: PairTensors,
        preview: PairTensors,
        *,
        settings: FitSettings,
        paths: RunPaths,
    ) -> None:
        self.objective: nn.Module = generator.objective
        self._generator = generator
        self._base = base
        self._pairs = pairs
        self._preview = preview
        self._settings = settings
        self._paths = paths
        self._alpha_bar = base.scheduler.alphas_cumprod.float()

    def trained_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        return self._generator.trained_parameters()

    def batch(self, step: int, positions: Sequence[int], device: torch.device) -> dict[str, Tensor]:
        """Samples, timesteps, noise and prompts of one micro-batch; see `siamese_terms`."""
        settings, pairs = self._settings, self._pairs
        seed, n = settings.train.seed, len(pairs)
        rows = sample_order(seed, step, positions, n=n, batch_size=settings.train.batch_size)
        shape = pairs.shape
        posterior, eps, times, prompts = [], [], [], []
        for position, row in zip(positions, rows, strict=True):
            draws = stream(seed, "train", step, position)
            posterior.append(torch.randn(shape, generator=draws))
            eps.append(torch.randn(shape, generator=draws))
            times.append(draw_timestep(draws, len(self._alpha_bar), settings.timestep_sampling))
            empty = torch.rand((), generator=draws) < settings.data.empty_prompt_probability
            prompts.append(0 if empty else int(pairs.prompt[row]))
        return self._assemble(
            pairs,
            rows,
            torch.stack(posterior),
            torch.stack(eps),
            torch.stack(times),
            prompts,
            device,
        )

    @torch.no_grad()
    def validate(self, device: torch.device) -> Mapping[str, float]:
        """Loss of the sampling-time prediction at fixed noise, per timestep bin and mean."""
        pairs, preview = self._preview, self._settings.preview
        rows = list(range(min(preview.validation_pairs, len(pairs))))
        width = len(self._alpha_bar) // VALIDATION_BINS
        shape = pairs.shape
        values: dict[str, float] = {}
        for b in range(VALIDATION_BINS):
            losses = []
            for row in rows:  # one by one: memory of a training step is never exceeded
                draws = stream(preview.seed, "validate", b, row)
                posterior = torch.randn((1, *shape), generator=draws)
                eps = torch.randn((1, *shape), generator=draws)
                t = torch.tensor([b * width + width // 2])
                batch = self._assemble(
                    pairs, [row], posterior, eps, t, [int(pairs.prompt[row])], device
                )
                losses.append(float(self._generator.validation_loss(batch)))
            values[f"loss/t{b * width:03d}-{(b + 1) * width - 1:03d}"] = float(np.mean(losses))
        return {"loss/mean": float(np.mean(list(values.values()))), **values}

    @torch.no_grad()
    def sample(self, step: int, device: torch.device) -> Mapping[str, object]:
        """Write the grid: masks, real images, samples at fixed seeds."""
        pairs, preview = self._preview, self._settings.preview
        n = min(preview.pairs, len(pairs))
        shape = pairs.shape
        noise = torch.stack([normal(shape, preview.seed, "preview", i) for i in range(n)])
        latents = draw(
            self._generator,
            _as_hint(pairs.mask[:n]).to(device),
            pairs.image[:n].to(device).float() / 255,
            pairs.context[pairs.prompt[:n]].to(device),
            pairs.context[:1].expand(n, -1, -1).to(device),
            noise.to(device),
            steps=preview.steps,
            guidance_scale=preview.guidance_scale,
        )
        place_decoder(self._base, device)
        drawn = to_uint8(to_images(self._base, latents)).numpy()
        masks = pairs.mask[:n].numpy()[..., None].repeat(3, axis=-1)
        real = pairs.image[:n].permute(0, 2, 3, 1).numpy()
        path = self._paths.sample_grid(step)
        picture = tile(np.concatenate([masks, real, drawn]), n)
        atomic_write_bytes(path, encode_png(picture))
        return {
            "file": str(path.relative_to(self._paths.root)),
            "rows": "masks, real, samples",
            "columns": n,
            "guidance_scale": preview.guidance_scale,
            "steps": preview.steps,
        }

    def _assemble(
        self,
        pairs: PairTensors,
        rows: Sequence[int],
        posterior: Tensor,
        eps: Tensor,
        t: Tensor,
        prompts: Sequence[int],
        device: torch.device,
    ) -> dict[str, Tensor]:
        chosen = list(rows)
        # Pixels travel as bytes and become numbers on the device: the same values, of an image a
        # fourth of the bytes, of a mask a twelfth.
        batch = {
            "z0": pairs.z0(chosen, posterior),
            "eps": eps,
            "t": t,
            "alpha_bar_t": self._alpha_bar[t],
            "c_text": pairs.context[list(prompts)],
            "mask": _as_hint(pairs.mask[chosen].to(device, non_blocking=True)),
        }
        if self._generator.needs_images:
            batch["image"] = pairs.image[chosen].to(device, non_blocking=True).float() / 255
        # timesteps stay on the CPU: the gate of Eq. (13) is read from them
        return {
            name: value if name == "t" else value.to(device, non_blocking=True)
            for name, value in batch.items()
        }


def _as_hint(mask: Tensor) -> Tensor:
    """(B, S, S) uint8 {0, 255} to (B, 3, S, S) float32 {0, 1}."""
    return (mask > 127).float().unsqueeze(1).expand(-1, 3, -1, -1).contiguous()
