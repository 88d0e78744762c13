"""The counter of sampling: hints, steps and decoder, at small width on the meta device."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import sampling_flops
from siamese_diffusion.generators.settings import SiameseFitSettings
from siamese_diffusion.generators.siamese import Siamese
from siamese_diffusion.models.base import Base
from siamese_diffusion.models.settings import SmallBaseSettings
from siamese_diffusion.models.small import build_small_base

SMALL = SmallBaseSettings(
    autoencoder_widths=(16, 16, 16, 16),
    unet_widths=(16, 32),
    unet_layers=1,
    text_width=32,
    text_layers=1,
)
SIZE, STEPS = 64, 5


@pytest.fixture(scope="module")
def base() -> Base:
    base = build_small_base(SMALL, size=SIZE, seed=0)
    base.unet.to("meta")
    base.vae.to("meta")
    return base


@pytest.fixture(scope="module")
def costs(base: Base) -> dict[str, sampling_flops.SamplerCost]:
    found = sampling_flops.sampler_costs(base, size=SIZE, steps=STEPS)
    return dict(zip(("ours", "literal", "diffusers"), found, strict=True))


@pytest.fixture(scope="module")
def hint(base: Base) -> float:
    """Operations of the hint input, GFLOP."""
    with torch.device("meta"):
        network = Siamese.build(SiameseFitSettings(), base).network
        picture = torch.empty(1, 3, SIZE, SIZE)
    with FlopCounterMode(display=False) as counter:
        network.hint(picture)
    return float(counter.get_total_flops()) / 1e9


def test_the_hint_is_encoded_once_here_and_in_every_pass_elsewhere(
    costs: dict[str, sampling_flops.SamplerCost],
) -> None:
    found = {name: cost.hints for name, cost in costs.items()}
    assert found == {"ours": 1, "literal": 2 * STEPS, "diffusers": 2 * STEPS}


def test_the_samplers_differ_by_the_hints_alone(
    hint: float, costs: dict[str, sampling_flops.SamplerCost]
) -> None:
    spared = (2 * STEPS - 1) * hint
    assert costs["literal"].gflop - costs["ours"].gflop == pytest.approx(spared)
    assert costs["diffusers"].gflop == pytest.approx(costs["literal"].gflop)


def test_few_steps_and_steps_without_guidance_cost_by_their_number(
    base: Base, hint: float, costs: dict[str, sampling_flops.SamplerCost]
) -> None:
    few, some = sampling_flops.option_costs(base, size=SIZE, steps=10)
    step = (costs["ours"].gflop - hint) / STEPS
    assert few.gflop == pytest.approx(hint + sampling_flops.FEW_STEPS * step)
    # of ten timesteps 901, 801, ... 1, the six from 701 to 201 lie within; the rest cost half
    assert some.gflop == pytest.approx(hint + (6 + 4 / 2) * step)
    assert few.hints == some.hints == 1


def test_the_decoder_costs_more_at_twice_the_size_by_the_number_of_pixels(base: Base) -> None:
    small, large = (sampling_flops.decoder_gflop(base.vae, size=s) for s in (SIZE, 2 * SIZE))
    assert large == pytest.approx(4 * small)  # the small autoencoder has no attention
