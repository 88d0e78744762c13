"""Stable Diffusion 1.5's full size with random weights: a step and a sample fit in 24 GB."""

from __future__ import annotations

import gc

import pytest
import torch

from siamese_diffusion.core.config import resolve
from siamese_diffusion.generators.settings import SiameseFitSettings
from siamese_diffusion.generators.siamese import Siamese
from siamese_diffusion.models.latents import decode
from siamese_diffusion.models.sd15 import build_sd15
from siamese_diffusion.training.memory import peak_memory_mb
from siamese_diffusion.training.optimizer import build_optimizer

SIZE, SIDE = 384, 48
LIMIT_MB = 24 * 1024


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_training_step_and_a_sample_at_full_size_fit_in_24_gb() -> None:
    torch.set_num_threads(2)
    base = build_sd15()
    settings = resolve(SiameseFitSettings, overrides=["train.gradient_checkpointing=true"])
    generator = Siamese.build(settings, base)
    trained = [p for _, p in generator.trained_parameters()]
    optimizer = build_optimizer(settings.train, trained)
    before = generator.network.control.controlnet_mid_block.weight.detach().clone()
    t = torch.tensor([100])
    batch = {
        "z0": torch.randn(1, 4, SIDE, SIDE),
        "eps": torch.randn(1, 4, SIDE, SIDE),
        "t": t,
        "alpha_bar_t": base.scheduler.alphas_cumprod[t].float(),
        "c_text": torch.randn(1, 77, 768),
        "mask": torch.ones(1, 3, SIZE, SIZE),
        "image": torch.rand(1, 3, SIZE, SIZE),
    }
    terms = generator.objective(2000, batch)  # after K_tau, below T_tau: all four terms
    torch.stack([v for n, v in terms.items() if n.startswith("loss/")]).sum().backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    assert set(terms) >= {"loss/mask", "loss/image", "loss/consistency", "loss/augment"}
    assert all(torch.isfinite(v) for v in terms.values())
    assert not torch.equal(before, generator.network.control.controlnet_mid_block.weight)

    optimizer.zero_grad(set_to_none=True)
    del optimizer, terms
    gc.collect()
    noise = torch.randn(1, 4, SIDE, SIDE)
    context = base.embed(["A photo of a polyp.", ""])
    latents = generator.sample_latents(
        batch["mask"], context[:1], context[1:], noise, steps=2, guidance_scale=9.0
    )
    image = decode(base.vae, latents)
    assert image.shape == (1, 3, SIZE, SIZE)
    assert torch.isfinite(image).all()
    assert peak_memory_mb(torch.device("cpu")) < LIMIT_MB
