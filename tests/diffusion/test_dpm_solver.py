"""DPM-Solver++ against diffusers' scheduler, and where guidance acts."""

from __future__ import annotations

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler
from torch import Tensor

from siamese_diffusion.diffusion.ddim import ddim_sample
from siamese_diffusion.diffusion.dpm_solver import dpm_sample, dpm_timesteps, integrate
from siamese_diffusion.diffusion.sampler import PAPER, Sampler
from siamese_diffusion.diffusion.schedule import scaled_linear_alpha_bar

ALPHA_BAR = scaled_linear_alpha_bar()


def scheduler(steps: int) -> DPMSolverMultistepScheduler:
    made = DPMSolverMultistepScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"
    )
    made.set_timesteps(steps)
    return made


def bent(zt: Tensor, t: int) -> Tensor:
    """A predictor that is neither linear nor the same at all timesteps."""
    return torch.tanh(zt * (1 + t / 1000)) + 0.1 * zt.flip(-1)


@pytest.mark.parametrize("steps", [1, 2, 10, 20, 50])
def test_timesteps_equal_those_of_diffusers(steps: int) -> None:
    assert dpm_timesteps(steps) == scheduler(steps).timesteps.tolist()


@pytest.mark.parametrize("steps", [0, 1000])
def test_a_step_count_outside_the_schedule_is_refused(steps: int) -> None:
    with pytest.raises(ValueError, match=f"between 1 and 999, got {steps}"):
        dpm_timesteps(steps)


@pytest.mark.parametrize("steps", [1, 2, 10, 20])
def test_final_latents_equal_those_of_diffusers(steps: int) -> None:
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    theirs, solver = noise, scheduler(steps)
    for t in solver.timesteps:
        theirs = solver.step(bent(theirs, int(t)), t, theirs).prev_sample
    found = dpm_sample(bent, noise, ALPHA_BAR, steps)
    assert found.dtype == torch.float32
    # theirs keeps lambda in float32
    torch.testing.assert_close(found, theirs, rtol=1e-3, atol=1e-4 * float(theirs.abs().max()))


def test_a_perfect_predictor_ends_on_the_clean_latent() -> None:
    z0 = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    eps = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    a = ALPHA_BAR[999]

    def predict(zt: Tensor, t: int) -> Tensor:
        return (zt - ALPHA_BAR[t].sqrt() * z0) / (1 - ALPHA_BAR[t]).sqrt()

    found = dpm_sample(predict, a.sqrt() * z0 + (1 - a).sqrt() * eps, ALPHA_BAR, 7)
    torch.testing.assert_close(found, z0, rtol=1e-4, atol=1e-4)


def test_the_sampler_names_the_solver() -> None:
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(4))
    assert torch.equal(
        integrate(PAPER, bent, noise, ALPHA_BAR, 5), ddim_sample(bent, noise, ALPHA_BAR, 5)
    )
    dpm = integrate(Sampler("dpm-solver++"), bent, noise, ALPHA_BAR, 5)
    assert torch.equal(dpm, dpm_sample(bent, noise, ALPHA_BAR, 5))


def test_guidance_acts_within_its_interval_both_ends_included() -> None:
    sampler = Sampler(guidance_interval=(200, 800))
    assert [sampler.guides(t) for t in (199, 200, 800, 801)] == [False, True, True, False]
    assert PAPER.guides(0) and PAPER.guides(999)
