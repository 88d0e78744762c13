"""What sampling one image costs; `count_flops.py --sampling` prints it.

Three samplers on the meta device: the project's, a release-style loop (hint encoded in both passes
of every step, tests/reference/literal_sampling.py) and diffusers' pipeline. Every step costs the
same, so a run of two steps less a run of one gives a step, and the rest is what is paid once.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionControlNetPipeline
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from reference.literal_sampling import literal_sample
from siamese_diffusion.diffusion.ddim import ddim_timesteps
from siamese_diffusion.diffusion.sampler import PAPER, Sampler
from siamese_diffusion.generators.settings import SiameseFitSettings
from siamese_diffusion.generators.siamese import Siamese
from siamese_diffusion.models.base import Base
from siamese_diffusion.models.latents import decode

STEPS, GUIDANCE_SCALE = 50, 9.0  # paper, Sec. 4.1
FEW_STEPS = 20  # what DPM-Solver++ is made for
INTERVAL = (200, 800)  # timesteps, as an example of `--guidance-interval`


class SamplerCost(NamedTuple):
    """Operations of one image, without the autoencoder's decoder.

    Attributes:
        gflop: Of all steps, multiply-add counted as 2.
        hints: How often the hint input runs.
    """

    name: str
    gflop: float
    hints: int


class _TimesOnCpu(DDIMScheduler):  # type: ignore[misc]
    """Its steps read values, so timesteps stay on the CPU whatever the device of the latents."""

    def set_timesteps(self, num_inference_steps: int, device: object = None) -> None:
        super().set_timesteps(num_inference_steps)


class _Meta(NamedTuple):
    """The project's sampler and what it is given, on the meta device."""

    generator: Siamese
    mask: Tensor
    context: Tensor
    noise: Tensor

    def sample(self, steps: int, sampler: Sampler = PAPER) -> object:
        return self.generator.sample_latents(
            self.mask,
            self.context,
            self.context,
            self.noise,
            steps=steps,
            guidance_scale=GUIDANCE_SCALE,
            sampler=sampler,
        )

    def cost(self, name: str, run: Callable[[int], object], steps: int) -> SamplerCost:
        """Of a sampler that `run(steps)` runs with this network."""
        hint = self.generator.network.control.controlnet_cond_embedding
        totals, calls = [], []
        for n in (1, 2):
            rows: list[int] = []
            handle = hint.register_forward_hook(
                lambda _module, given, _out, rows=rows: rows.append(len(given[0]))
            )
            try:
                totals.append(_gflop(partial(run, n)))
            finally:
                handle.remove()
            calls.append(sum(rows))
        return SamplerCost(
            name,
            totals[0] + (steps - 1) * (totals[1] - totals[0]),
            calls[0] + (steps - 1) * (calls[1] - calls[0]),
        )


def sampler_costs(base: Base, *, size: int, steps: int = STEPS) -> list[SamplerCost]:
    """Cost of one guided image of `size` pixels by each sampler.

    Args:
        base: A base whose U-Net lies on the meta device.
        size: Pixels along each side.
        steps: Number of DDIM steps.
    """
    meta = _on_meta(base, size)
    generator, mask, context, noise = meta
    control = generator.network.control
    alpha_bar = base.scheduler.alphas_cumprod.float()
    pipeline = StableDiffusionControlNetPipeline(
        vae=base.vae,
        text_encoder=base.text_encoder,
        tokenizer=base.tokenizer,
        unet=base.unet,
        controlnet=control,
        scheduler=_TimesOnCpu.from_config(base.scheduler.config),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)

    def literal(n: int) -> object:
        return literal_sample(
            base.unet,
            control,
            mask,
            context,
            context,
            noise,
            alpha_bar=alpha_bar,
            steps=n,
            guidance_scale=GUIDANCE_SCALE,
        )

    def diffusers(n: int) -> object:
        return pipeline(
            prompt_embeds=context,
            negative_prompt_embeds=context,
            image=mask,
            latents=noise,
            num_inference_steps=n,
            guidance_scale=GUIDANCE_SCALE,
            output_type="latent",
        )

    return [
        meta.cost("this project", meta.sample, steps),
        meta.cost("release-style loop, two passes a step", literal, steps),
        meta.cost("diffusers' ControlNet pipeline", diffusers, steps),
    ]


def option_costs(base: Base, *, size: int, steps: int = STEPS) -> list[SamplerCost]:
    """Cost of one image under `sample`'s options: few steps, and guidance within an interval.

    Args:
        base, size: As for `sampler_costs`.
        steps: Number of DDIM steps of the second.
    """
    meta = _on_meta(base, size)

    def cost(name: str, sampler: Sampler, steps: int) -> SamplerCost:
        return meta.cost(name, partial(meta.sample, sampler=sampler), steps)

    few = Sampler(name="dpm-solver++")
    chosen = Sampler(guidance_interval=INTERVAL)
    guided = sum(chosen.guides(t) for t in ddim_timesteps(steps))
    always = cost("", PAPER, steps)
    never = cost("", Sampler(guidance_interval=(0, 0)), steps)  # no step falls on it
    share = guided / steps
    low, high = INTERVAL
    return [
        cost(f"DPM-Solver++, {FEW_STEPS} steps", few, FEW_STEPS),
        SamplerCost(
            f"guidance at timesteps {low} to {high} alone",
            share * always.gflop + (1 - share) * never.gflop,
            always.hints,
        ),
    ]


def decoder_gflop(vae: AutoencoderKL, *, size: int) -> float:
    """Operations of decoding one latent, GFLOP."""
    device = next(vae.parameters()).device
    channels = int(vae.config["latent_channels"])
    z0 = torch.empty(1, channels, size // 8, size // 8, device=device)
    return _gflop(lambda: decode(vae, z0))


def _on_meta(base: Base, size: int) -> _Meta:
    with torch.device("meta"):
        generator = Siamese.build(SiameseFitSettings(), base)
        mask = torch.empty(1, 3, size, size)
        context = torch.empty(1, 77, int(base.unet.config["cross_attention_dim"]))
        noise = torch.empty(1, int(base.unet.config["in_channels"]), size // 8, size // 8)
    generator.network.control.requires_grad_(False)
    return _Meta(generator, mask, context, noise)


def _gflop(work: Callable[[], object]) -> float:
    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops()) / 1e9
