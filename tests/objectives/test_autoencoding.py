"""Losses and quality of the small autoencoder."""

from __future__ import annotations

import math

import pytest
import torch

from siamese_diffusion.objectives.autoencoding import (
    edge_loss,
    posterior_divergence,
    psnr,
    reconstruction_loss,
)


def test_reconstruction_loss_is_the_mean_absolute_error() -> None:
    found = torch.tensor([0.0, 1.0, -1.0, 0.5]).view(1, 1, 2, 2)
    assert float(reconstruction_loss(found, torch.zeros(1, 1, 2, 2))) == pytest.approx(0.625)


def test_edge_loss_compares_neighbours_in_both_directions() -> None:
    # differences down: -1 and 1; across: 1 and 3
    found = torch.tensor([[0.0, 1.0], [-1.0, 2.0]]).view(1, 1, 2, 2)
    assert float(edge_loss(found, torch.zeros(1, 1, 2, 2))) == pytest.approx(1.0 + 2.0)


def test_edge_loss_does_not_see_a_constant_shift() -> None:
    image = torch.rand(1, 3, 8, 8)
    assert float(edge_loss(image + 0.25, image)) == pytest.approx(0.0, abs=1e-6)


def test_a_standard_normal_posterior_has_no_divergence() -> None:
    zeros = torch.zeros(2, 4, 2, 2)
    assert float(posterior_divergence(zeros, zeros)) == 0.0


def test_divergence_by_hand() -> None:
    mean, log_variance = torch.full((1, 1, 1, 1), 2.0), torch.full((1, 1, 1, 1), math.log(0.25))
    expected = 0.5 * (4 + 0.25 - 1 - math.log(0.25))
    assert float(posterior_divergence(mean, log_variance)) == pytest.approx(expected)


def test_divergence_equals_that_of_torchs_distributions() -> None:
    mean, log_variance = torch.randn(2, 4, 3, 3), torch.randn(2, 4, 3, 3)
    posterior = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    expected = torch.distributions.kl_divergence(
        posterior, torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean))
    ).mean()
    torch.testing.assert_close(posterior_divergence(mean, log_variance), expected)


def test_psnr_is_per_image_with_a_peak_of_two() -> None:
    images = torch.zeros(2, 3, 4, 4)
    found = images.clone()
    found[0] += 0.2  # 10 log10(4 / 0.04)
    found[1] += 0.02
    torch.testing.assert_close(psnr(found, images), torch.tensor([20.0, 40.0]))


def test_psnr_of_equal_images_is_large_and_finite() -> None:
    images = torch.rand(1, 3, 4, 4)
    assert 120 < float(psnr(images, images)) < 130


def test_gradients_reach_the_reconstruction_and_the_posterior() -> None:
    found = torch.rand(1, 3, 4, 4).requires_grad_()
    image = torch.rand(1, 3, 4, 4)
    torch.autograd.backward(reconstruction_loss(found, image) + edge_loss(found, image))
    assert found.grad is not None
    assert float(found.grad.abs().sum()) > 0
    mean = torch.full((1, 1, 1, 1), 2.0, requires_grad=True)
    torch.autograd.backward(posterior_divergence(mean, torch.zeros(1, 1, 1, 1)))
    assert mean.grad is not None
    assert float(mean.grad) == pytest.approx(2.0)
