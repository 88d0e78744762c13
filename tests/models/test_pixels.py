"""Spaces: latents of a base, or pixels."""

from __future__ import annotations

from pathlib import Path

import torch

from siamese_diffusion.diffusion.schedule import scaled_linear_alpha_bar
from siamese_diffusion.models.base import load_base
from siamese_diffusion.models.latents import decode
from siamese_diffusion.models.pixels import PixelSpace, place_decoder, sample_shape, to_images


def test_in_pixel_space_the_sample_is_the_image() -> None:
    space = PixelSpace()
    assert sample_shape(space, 48) == (3, 48, 48)
    z0 = torch.tensor([[[[-2.0, 0.25]]]]).expand(1, 3, 1, 2)
    assert to_images(space, z0)[0, 0, 0].tolist() == [-1.0, 0.25]
    place_decoder(space, torch.device("cpu"))


def test_a_base_is_sampled_in_its_latents(small_base_folder: Path) -> None:
    base = load_base(small_base_folder)
    assert sample_shape(base, 64) == (4, 8, 8)
    z0 = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(to_images(base, z0), decode(base.vae, z0))


def test_the_schedule_of_a_pixel_space_follows_its_betas() -> None:
    found = PixelSpace(beta_start=0.0015, beta_end=0.0205).scheduler.alphas_cumprod
    torch.testing.assert_close(found, scaled_linear_alpha_bar(beta_start=0.0015, beta_end=0.0205))


def test_pixel_spaces_differ_by_schedule_and_read_no_prompt() -> None:
    assert PixelSpace().sha256 == PixelSpace().sha256 != PixelSpace(beta_end=0.02).sha256
    assert PixelSpace().embed(["a", "b", ""]).shape == (3, 1, 1)
