"""Whitened latents have unit covariance and decode to the same images."""

from __future__ import annotations

import pytest
import torch
from diffusers import AutoencoderKL

from siamese_diffusion.models.latents import encode_moments
from siamese_diffusion.models.settings import SmallBaseSettings
from siamese_diffusion.models.small import build_autoencoder
from siamese_diffusion.models.whitening import fold_whitening, whitened_std, whitening


@pytest.fixture
def vae() -> AutoencoderKL:
    torch.manual_seed(0)
    settings = SmallBaseSettings(autoencoder_widths=(16, 16, 16, 16))
    vae = build_autoencoder(settings, size=32).eval().requires_grad_(False)
    with torch.no_grad():  # channels of very different size, as training leaves them
        vae.quant_conv.weight[:4] *= torch.tensor([10.0, 5.0, 0.5, 0.4]).view(4, 1, 1, 1)
        vae.quant_conv.bias[:4] = torch.tensor([3.0, -1.0, 0.0, 0.2])
    return vae


def test_channels_get_unit_covariance_and_no_mean(vae: AutoencoderKL) -> None:
    images = torch.rand(12, 3, 32, 32) * 2 - 1
    mean, std = encode_moments(vae, images)
    matrix, centre = whitening(mean)
    fold_whitening(vae, matrix, centre, whitened_std(std, matrix))
    white, deviation = encode_moments(vae, images)
    flat = white.permute(1, 0, 2, 3).flatten(1)
    torch.testing.assert_close(torch.cov(flat), torch.eye(4), atol=1e-3, rtol=0)
    torch.testing.assert_close(flat.mean(1), torch.zeros(4), atol=1e-3, rtol=0)
    expected = (matrix.square() @ std.square().mean((0, 2, 3))).sqrt()
    torch.testing.assert_close(deviation, expected.view(1, 4, 1, 1).expand_as(deviation))


def test_reconstructions_stay_what_they_were(vae: AutoencoderKL) -> None:
    images = torch.rand(6, 3, 32, 32) * 2 - 1
    mean, std = encode_moments(vae, images)
    before = vae.decode(mean).sample
    matrix, centre = whitening(mean)
    fold_whitening(vae, matrix, centre, whitened_std(std, matrix))
    after = vae.decode(encode_moments(vae, images)[0]).sample
    torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-4)


def test_a_channel_without_content_is_not_blown_up() -> None:
    mean = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    mean[:, 2] *= 1e-6
    matrix, _ = whitening(mean)
    assert float(matrix.abs().max()) < 150  # one over the root of a ten-thousandth
