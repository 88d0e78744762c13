"""Images to latents and back."""

from __future__ import annotations

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny

from siamese_diffusion.models.latents import decode, encode_moments, to_uint8


@pytest.fixture(scope="module")
def kl() -> AutoencoderKL:
    torch.manual_seed(0)
    vae = AutoencoderKL(
        block_out_channels=(16, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=8,
        scaling_factor=0.18215,
    )
    return vae.eval()


@pytest.fixture(scope="module")
def tiny() -> AutoencoderTiny:
    torch.manual_seed(0)
    blocks = {
        "encoder_block_out_channels": (8, 8),
        "decoder_block_out_channels": (8, 8),
        "num_encoder_blocks": (1, 1),
        "num_decoder_blocks": (1, 1),
    }
    return AutoencoderTiny(**blocks, scaling_factor=1.0).eval()


def test_moments_are_those_of_the_scaled_posterior(kl: AutoencoderKL) -> None:
    images = torch.rand(2, 3, 16, 16) * 2 - 1
    mean, std = encode_moments(kl, images)
    with torch.no_grad():
        posterior = kl.encode(images).latent_dist
        sample = posterior.sample(generator=torch.Generator().manual_seed(1)) * 0.18215
    noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(mean + std * noise, sample)
    assert bool((std > 0).all())


def test_decoding_undoes_the_scale_and_clamps(kl: AutoencoderKL) -> None:
    z0 = torch.randn(1, 4, 8, 8)
    with torch.no_grad():
        raw = kl.decode(z0 / 0.18215).sample
    torch.testing.assert_close(decode(kl, z0), raw.clamp(-1, 1))
    assert float(decode(kl, 1000 * z0).abs().max()) <= 1.0


def test_a_tiny_autoencoder_is_deterministic(tiny: AutoencoderTiny) -> None:
    images = torch.rand(2, 3, 16, 16) * 2 - 1
    mean, std = encode_moments(tiny, images)
    assert mean.shape == std.shape
    assert not std.any()
    with torch.no_grad():
        assert torch.equal(mean, tiny.encode(images).latents)
    assert decode(tiny, mean).shape == images.shape


def test_no_gradient_is_kept(kl: AutoencoderKL) -> None:
    mean, std = encode_moments(kl, torch.zeros(1, 3, 16, 16, requires_grad=True))
    assert not mean.requires_grad
    assert not std.requires_grad
    assert not decode(kl, mean).requires_grad


def test_the_range_of_images_maps_to_all_256_levels() -> None:
    levels = torch.arange(256) / 127.5 - 1
    images = levels.view(1, 1, 16, 16).expand(1, 3, 16, 16)
    found = to_uint8(images)
    assert found.shape == (1, 16, 16, 3)
    assert found.dtype == torch.uint8
    assert torch.equal(found[0, :, :, 0].flatten(), torch.arange(256, dtype=torch.uint8))


def test_values_outside_the_range_do_not_wrap_around() -> None:
    images = torch.tensor([-1.5, -1.0, 1.0, 1.5]).view(1, 1, 2, 2).expand(1, 3, 2, 2)
    assert to_uint8(images)[0, :, :, 1].flatten().tolist() == [0, 0, 255, 255]


def test_half_precision_images_are_rounded_in_float32() -> None:
    images = torch.full((1, 3, 1, 1), 0.5, dtype=torch.bfloat16)
    assert to_uint8(images).flatten().tolist() == [191] * 3
