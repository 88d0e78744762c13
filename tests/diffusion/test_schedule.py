"""The noise schedule and Eq. (1), forwards and inverted."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler

from siamese_diffusion.diffusion.schedule import add_noise, predict_z0, scaled_linear_alpha_bar
from siamese_diffusion.models.scheduler import SD_SCHEDULE


def test_alpha_bar_starts_at_one_minus_the_first_beta() -> None:
    alpha_bar = scaled_linear_alpha_bar()
    assert alpha_bar.shape == (1000,)
    assert alpha_bar.dtype == torch.float32
    assert float(alpha_bar[0]) == pytest.approx(1 - 0.00085, rel=1e-7)


def test_alpha_bar_of_three_steps_equals_the_product_by_hand() -> None:
    alpha_bar = scaled_linear_alpha_bar(beta_start=0.01, beta_end=0.09, num_timesteps=3)
    expected = [0.99, 0.99 * 0.96, 0.99 * 0.96 * 0.91]  # roots 0.1, 0.2, 0.3
    torch.testing.assert_close(alpha_bar, torch.tensor(expected))


def test_alpha_bar_falls_strictly_and_ends_near_stable_diffusions_value() -> None:
    alpha_bar = scaled_linear_alpha_bar()
    assert bool((alpha_bar.diff() < 0).all())
    assert float(alpha_bar[-1]) == pytest.approx(0.00466, rel=1e-2)


def test_alpha_bar_equals_that_of_diffusers_scheduler() -> None:
    # diffusers multiplies a thousand factors in float32: 1000 roundings of 6e-8
    torch.testing.assert_close(
        scaled_linear_alpha_bar(), DDIMScheduler(**SD_SCHEDULE).alphas_cumprod, rtol=6e-5, atol=0
    )


def test_noise_is_added_by_the_roots_of_alpha_bar() -> None:
    z0 = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 1, 2, 2)
    eps = torch.tensor([1.0, 0.0, -1.0, 0.5]).view(1, 1, 2, 2)
    zt = add_noise(z0, eps, torch.tensor([0.64]))  # 0.8 z0 + 0.6 eps
    torch.testing.assert_close(zt.flatten(), torch.tensor([1.4, 1.6, 1.8, 3.5]))


def test_each_sample_has_its_own_alpha_bar() -> None:
    z0, eps = torch.ones(2, 1, 1, 1), torch.zeros(2, 1, 1, 1)
    zt = add_noise(z0, eps, torch.tensor([1.0, 0.25]))
    assert zt.flatten().tolist() == [1.0, 0.5]


def test_alpha_bar_of_one_leaves_the_latent_alone() -> None:
    z0 = torch.randn(2, 4, 2, 2)
    assert torch.equal(add_noise(z0, torch.randn_like(z0), torch.ones(2)), z0)


def test_z0_by_hand() -> None:
    z0 = predict_z0(torch.full((1, 1, 1, 1), 2.0), torch.ones(1, 1, 1, 1), torch.tensor([0.64]))
    torch.testing.assert_close(z0.flatten(), torch.tensor([(2.0 - 0.6) / 0.8]))


def test_with_the_true_noise_eq_11_undoes_eq_1() -> None:
    z0, eps = torch.randn(5, 4, 3, 3), torch.randn(5, 4, 3, 3)
    alpha_bar_t = scaled_linear_alpha_bar()[torch.tensor([0, 199, 500, 900, 999])]
    back = predict_z0(add_noise(z0, eps, alpha_bar_t), eps, alpha_bar_t)
    # at t = 999 the noise is 15 times the signal, and rounding grows by as much
    torch.testing.assert_close(back, z0, rtol=1e-5, atol=2e-5)
    torch.testing.assert_close(back[:2], z0[:2], rtol=1e-6, atol=1e-6)


def test_gradient_reaches_latent_and_noise_through_both_functions() -> None:
    z0 = torch.ones(1, 1, 1, 1, requires_grad=True)
    eps = torch.ones(1, 1, 1, 1, requires_grad=True)
    torch.autograd.backward(add_noise(z0, eps, torch.tensor([0.64])).sum())
    assert z0.grad is not None
    assert eps.grad is not None
    torch.testing.assert_close(z0.grad.flatten(), torch.tensor([0.8]))
    torch.testing.assert_close(eps.grad.flatten(), torch.tensor([0.6]))
    eps.grad = None
    torch.autograd.backward(predict_z0(torch.ones(1, 1, 1, 1), eps, torch.tensor([0.64])).sum())
    torch.testing.assert_close(eps.grad, torch.full((1, 1, 1, 1), -0.75))
