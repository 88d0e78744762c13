"""The sampler against the literal loop of the release."""

from __future__ import annotations

import pytest
import torch

from reference.literal import disturb
from reference.literal_sampling import literal_sample
from siamese_diffusion.core.seeding import normal
from siamese_diffusion.generators.settings import SiameseFitSettings
from siamese_diffusion.generators.siamese import Siamese
from siamese_diffusion.models.settings import SmallBaseSettings
from siamese_diffusion.models.small import build_small_base

SMALL = SmallBaseSettings(
    autoencoder_widths=(16, 16, 16, 16),
    unet_widths=(16, 32),
    unet_layers=1,
    text_width=32,
    text_layers=1,
)


@pytest.mark.parametrize("steps", [1, 10])
@pytest.mark.parametrize("guidance", [1.0, 9.0], ids=["unguided", "guided"])
def test_latents_equal_those_of_the_literal_loop(steps: int, guidance: float) -> None:
    base = build_small_base(SMALL, size=64, seed=0)
    generator = Siamese.build(SiameseFitSettings(), base)
    disturb(generator.network, scale=0.02)
    mask = torch.zeros(2, 3, 64, 64)
    mask[:, :, 16:40, 8:48] = 1
    noise = torch.stack([normal((4, 8, 8), seed, "sample") for seed in (1, 2)])
    context = base.embed(["A photo of a polyp.", ""])
    c_text, c_empty = (row.expand(2, -1, -1) for row in context)
    ours = generator.sample_latents(
        mask, c_text, c_empty, noise, steps=steps, guidance_scale=guidance
    )
    theirs = literal_sample(
        base.unet,
        generator.network.control,
        mask,
        c_text,
        c_empty,
        noise,
        alpha_bar=base.scheduler.alphas_cumprod.float(),
        steps=steps,
        guidance_scale=guidance,
    )
    # Rounding of each step is carried on by the next, ninefold by the guidance.
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * float(theirs.abs().max()))
