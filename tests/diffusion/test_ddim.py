"""DDIM against diffusers' scheduler and against a closed form."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor

from siamese_diffusion.diffusion.ddim import ddim_sample, ddim_timesteps, fresh_noise
from siamese_diffusion.diffusion.schedule import scaled_linear_alpha_bar
from siamese_diffusion.models.scheduler import SD_SCHEDULE


def fake_predictor(zt: Tensor, t: int) -> Tensor:
    """Smooth, bounded, and different at every timestep and position."""
    return torch.sin(3 * zt + t / 100) + 0.1 * torch.roll(zt, 1, dims=-1)


def test_fifty_steps_run_from_981_to_1_by_twenties() -> None:
    assert ddim_timesteps(50) == list(range(981, 0, -20))


@pytest.mark.parametrize("steps", [1, 2, 7, 25, 30, 50, 100, 500])
def test_timesteps_equal_those_of_diffusers(steps: int) -> None:
    scheduler = DDIMScheduler(**SD_SCHEDULE)
    scheduler.set_timesteps(steps)
    assert ddim_timesteps(steps) == scheduler.timesteps.tolist()


def test_as_many_steps_as_timesteps_stay_inside_the_schedule() -> None:
    times = ddim_timesteps(1000)
    assert len(times) == 1000
    assert (max(times), min(times)) == (999, 1)


@pytest.mark.parametrize("steps", [0, -3, 1001])
def test_a_step_count_outside_the_schedule_is_refused(steps: int) -> None:
    with pytest.raises(ValueError, match=rf"steps must be between 1 and 1000, got {steps}"):
        ddim_timesteps(steps)


@pytest.mark.parametrize("steps", [2, 30, 50])
def test_final_latents_equal_those_of_diffusers(steps: int) -> None:
    noise = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    scheduler = DDIMScheduler(**SD_SCHEDULE)
    scheduler.set_timesteps(steps)
    expected = noise
    for t in scheduler.timesteps:
        eps = fake_predictor(expected, int(t))
        expected = scheduler.step(eps, t, expected, eta=0.0).prev_sample
    found = ddim_sample(fake_predictor, noise, scheduler.alphas_cumprod, steps)
    # one order of roundings against another over 50 steps
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_a_perfect_predictor_ends_on_the_first_alpha_bar() -> None:
    alpha_bar = scaled_linear_alpha_bar()
    z0, eps = torch.randn(3, 4, 2, 2), torch.randn(3, 4, 2, 2)
    start = alpha_bar[981].sqrt() * z0 + (1 - alpha_bar[981]).sqrt() * eps
    end = ddim_sample(lambda zt, t: eps, start, alpha_bar, 50)
    expected = alpha_bar[0].sqrt() * z0 + (1 - alpha_bar[0]).sqrt() * eps
    # z0 is read from a latent with 15 times as much noise
    torch.testing.assert_close(end, expected, rtol=1e-4, atol=1e-4)


def test_one_step_by_hand() -> None:
    alpha_bar = torch.tensor([0.81, 0.64])
    end = ddim_sample(lambda zt, t: zt / 2, torch.ones(1, 1, 1, 1), alpha_bar, 1)
    z0 = (1 - 0.6 * 0.5) / 0.8
    torch.testing.assert_close(end.flatten(), torch.tensor([0.9 * z0 + 0.19**0.5 * 0.5]))


def test_the_predictor_is_asked_once_a_step_and_keeps_no_graph() -> None:
    weight = torch.ones((), requires_grad=True)
    asked: list[int] = []

    def predict(zt: Tensor, t: int) -> Tensor:
        asked.append(t)
        return weight * zt

    end = ddim_sample(predict, torch.ones(1, 1, 1, 1), scaled_linear_alpha_bar(), 10)
    assert asked == ddim_timesteps(10)
    assert not end.requires_grad


def test_progress_counts_finished_steps() -> None:
    seen: list[tuple[int, int]] = []
    ddim_sample(
        fake_predictor,
        torch.zeros(1, 1, 1, 1),
        scaled_linear_alpha_bar(),
        3,
        progress=lambda done, steps: seen.append((done, steps)),
    )
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_the_noise_is_not_written_to() -> None:
    noise = torch.randn(1, 4, 2, 2)
    before = noise.clone()
    ddim_sample(fake_predictor, noise, scaled_linear_alpha_bar(), 5)
    assert torch.equal(noise, before)


def test_200_steps_run_from_996_to_1() -> None:
    times = ddim_timesteps(200)
    assert (times[0], times[-1], len(times)) == (996, 1, 200)


def stochastic(noise: Tensor, *, eta: float) -> Tensor:
    alpha_bar = scaled_linear_alpha_bar(beta_start=0.0015, beta_end=0.0205)
    return ddim_sample(lambda zt, t: 0.3 * zt, noise, alpha_bar, 20, eta=eta)


def test_with_eta_1_the_steps_are_those_of_diffusers_given_the_same_noise() -> None:
    noise = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    fresh = fresh_noise(noise)
    scheduler = DDIMScheduler(
        beta_start=0.0015,
        beta_end=0.0205,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    scheduler.set_timesteps(20)
    zt = noise
    for i, t in enumerate(scheduler.timesteps):
        zt = scheduler.step(0.3 * zt, t, zt, eta=1.0, variance_noise=fresh(i)).prev_sample
    torch.testing.assert_close(stochastic(noise, eta=1.0), zt)


def test_added_noise_belongs_to_the_image_not_to_its_batch() -> None:
    noise = torch.randn(3, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    together = stochastic(noise, eta=1.0)
    assert torch.equal(stochastic(noise[1:2], eta=1.0), together[1:2])
    assert not torch.equal(together, stochastic(noise, eta=0.0))


def test_further_noise_is_standard_normal_and_new_at_every_step() -> None:
    noise = torch.randn(2, 4, 64, 64, generator=torch.Generator().manual_seed(0))
    fresh = fresh_noise(noise)
    first, second = fresh(0), fresh(1)
    assert torch.equal(first, fresh(0)) and not torch.equal(first, second)
    for drawn in (first, second):
        assert abs(float(drawn.mean())) < 0.03 and abs(float(drawn.std()) - 1) < 0.03
        correlation = float((drawn * noise).mean())
        assert abs(correlation) < 0.03
