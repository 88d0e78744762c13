"""Training timesteps: densities and streams."""

from __future__ import annotations

import torch

from siamese_diffusion.core.seeding import generator
from siamese_diffusion.diffusion.timesteps import draw_timestep


def test_uniform_draws_are_torchs_from_the_samples_own_stream() -> None:
    ours = draw_timestep(generator(1, "train", 0, 0), 1000)
    assert torch.equal(ours, torch.randint(1000, (), generator=generator(1, "train", 0, 0)))


def test_cubic_draws_follow_the_closed_form() -> None:
    draws = generator(0, "test")
    t = torch.stack([draw_timestep(draws, 1000, "cubic") for _ in range(4000)]).double()
    assert t.min() >= 0 and t.max() <= 999
    # E[(1 - u^3) T] = 0.75 T; standard error of 4,000 draws is 4.5
    assert abs(float(t.mean()) - 749.5) < 18
    # P(t < 500) = P(u^3 > 0.5) = 1 - 0.5^(1/3)
    assert abs(float((t < 500).double().mean()) - (1 - 0.5 ** (1 / 3))) < 0.025
