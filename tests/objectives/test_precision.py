"""A siamese step in bf16 against fp32, and in channels-last against the plain layout."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from reference.literal import disturb
from siamese_diffusion.core.config import build
from siamese_diffusion.generators.settings import SiameseFitSettings
from siamese_diffusion.generators.siamese import Siamese
from siamese_diffusion.models.settings import SmallBaseSettings
from siamese_diffusion.models.small import build_small_base
from siamese_diffusion.training.layout import lay_out

SMALL = SmallBaseSettings(
    autoencoder_widths=(16, 16, 16, 16),
    unet_widths=(16, 32),
    unet_layers=1,
    text_width=32,
    text_layers=1,
)
N_ITER = 30
# bf16 keeps eight bits of each number: one part in 256 or better of each, and layers average.
RELATIVE_ERROR = 0.01


def method() -> Siamese:
    generator = Siamese.build(
        build(SiameseFitSettings, {"train": {"steps": N_ITER}}),
        build_small_base(SMALL, size=64, seed=0),
    )
    disturb(generator.network.control, scale=0.02)
    return generator


def batch() -> dict[str, Tensor]:
    draws = torch.Generator().manual_seed(5)
    t = torch.tensor([100, 150, 600, 900])
    alpha_bar = build_small_base(SMALL, size=64, seed=0).scheduler.alphas_cumprod.float()
    return {
        "z0": torch.randn(4, 4, 8, 8, generator=draws),
        "eps": torch.randn(4, 4, 8, 8, generator=draws),
        "mask": (torch.rand(4, 1, 64, 64, generator=draws) > 0.5).float().repeat(1, 3, 1, 1),
        "image": torch.rand(4, 3, 64, 64, generator=draws),
        "t": t,
        "alpha_bar_t": alpha_bar[t],
        "c_text": torch.randn(4, 77, 32, generator=draws),
    }


def step(generator: Siamese, k: int) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Terms and gradients of one step."""
    generator.objective.zero_grad(set_to_none=True)
    terms = generator.objective(k, batch())
    losses = [value for name, value in terms.items() if name.startswith("loss/")]
    torch.autograd.backward(torch.stack([loss.float() for loss in losses]).sum())
    gradients = {n: p.grad for n, p in generator.trained_parameters() if p.grad is not None}
    return {name: float(value.detach()) for name, value in terms.items()}, gradients


@pytest.mark.parametrize("k", [3, 20], ids=["before K_tau", "after K_tau"])
def test_losses_in_bf16_are_those_of_fp32_within_the_stated_error(k: int) -> None:
    plain, gradients = step(method(), k)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded, of_rounded = step(method(), k)
    assert plain.keys() == rounded.keys()
    total = sum(value for name, value in plain.items() if name.startswith("loss/"))
    assert any(plain[name] != rounded[name] for name in plain)
    for name, value in plain.items():
        # small terms are differences of large ones: their error is measured by the whole loss
        assert abs(rounded[name] - value) <= RELATIVE_ERROR * total, name
    assert gradients.keys() == of_rounded.keys()
    assert {g.dtype for g in of_rounded.values()} == {torch.float32}
    a, b = (torch.cat([g.flatten() for g in gs.values()]) for gs in (gradients, of_rounded))
    assert float(torch.nn.functional.cosine_similarity(a, b, dim=0)) > 0.99


def test_a_step_in_channels_last_is_that_of_the_plain_layout() -> None:
    plain, gradients = step(method(), 20)
    turned = method()
    lay_out(turned.objective)
    found, of_turned = step(turned, 20)
    assert found == pytest.approx(plain, rel=1e-5, abs=1e-7)
    scale = max(float(g.abs().max()) for g in gradients.values())
    for name, gradient in gradients.items():
        torch.testing.assert_close(of_turned[name], gradient, rtol=1e-4, atol=1e-5 * scale)


def test_samples_in_channels_last_are_those_of_the_plain_layout() -> None:
    given, plain, turned = batch(), method(), method()
    lay_out(turned.objective)
    context = (given["c_text"], torch.zeros_like(given["c_text"]))
    expected, found = (
        one.sample_latents(given["mask"], *context, given["eps"], steps=5, guidance_scale=2.0)
        for one in (plain, turned)
    )
    # rounding of each step is carried on by the next
    atol = 1e-4 * float(expected.abs().max())
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=atol)
