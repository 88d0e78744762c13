"""Fresh small bases."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from siamese_diffusion.models.base import Base, load_base, state_sha256
from siamese_diffusion.models.latents import decode, encode_moments
from siamese_diffusion.models.settings import SmallBaseSettings
from siamese_diffusion.models.small import (
    build_autoencoder,
    build_small_base,
    build_unet,
)

SMALL = SmallBaseSettings(
    autoencoder_widths=(16, 16, 16, 16),
    unet_widths=(16, 32),
    unet_layers=1,
    text_width=32,
    text_layers=1,
)


@pytest.fixture(scope="module")
def base() -> Base:
    return build_small_base(SMALL, size=64, seed=0)


def test_weights_depend_on_the_seed_alone(base: Base) -> None:
    torch.manual_seed(99)
    assert build_small_base(SMALL, size=64, seed=0).sha256 == base.sha256
    assert build_small_base(SMALL, size=64, seed=1).sha256 != base.sha256


def test_building_leaves_the_global_random_stream_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    build_small_base(SMALL, size=64, seed=0)
    assert torch.equal(torch.rand(3), expected)


def test_it_knows_its_size_width_and_origin(base: Base) -> None:
    assert (base.size, base.first_width) == (64, 16)
    assert (base.reference, base.kind, base.path) == ("small", "fresh", None)


def test_image_to_latent_to_noise_prediction_to_image(base: Base) -> None:
    mean, _ = encode_moments(base.vae, torch.rand(2, 3, 64, 64) * 2 - 1)
    assert mean.shape == (2, 4, 8, 8)
    c_text = base.embed(["A photo of a polyp.", ""])
    with torch.no_grad():
        eps = base.unet(mean, torch.tensor([5, 900]), c_text, return_dict=False)[0]
    assert eps.shape == mean.shape
    assert decode(base.vae, mean).shape == (2, 3, 64, 64)


def test_prompts_become_77_tokens_and_differ(base: Base) -> None:
    c_text = base.embed(["A photo of a polyp.", "", "A photo of a lesion."])
    assert c_text.shape == (3, 77, 32)
    assert c_text.dtype == torch.float32
    assert not torch.equal(c_text[0], c_text[1])
    assert not torch.equal(c_text[0], c_text[2])


def test_a_long_prompt_is_cut_to_the_encoders_length(base: Base) -> None:
    assert base.embed(["polyp " * 100]).shape == (1, 77, 32)


def test_saved_and_loaded_it_is_the_same_base(base: Base, tmp_path: Path) -> None:
    base.save(tmp_path)
    loaded = load_base(tmp_path)
    assert loaded.sha256 == base.sha256
    assert (loaded.size, loaded.kind, loaded.path) == (64, "folder", tmp_path)
    prompts = ["A photo of a polyp.", ""]
    assert torch.equal(loaded.embed(prompts), base.embed(prompts))


def test_the_first_level_has_no_attention() -> None:
    unet = build_unet(SMALL, size=64)
    assert unet.config["down_block_types"] == ("DownBlock2D", "CrossAttnDownBlock2D")
    assert unet.config["up_block_types"] == ("CrossAttnUpBlock2D", "UpBlock2D")


def test_the_autoencoder_reduces_by_eight() -> None:
    vae = build_autoencoder(SMALL, size=64)
    assert encode_moments(vae, torch.zeros(1, 3, 64, 32))[0].shape == (1, 4, 8, 4)


def test_latent_channels_are_configurable() -> None:
    base = build_small_base(SMALL.model_copy(update={"latent_channels": 8}), size=64, seed=0)
    assert base.unet.config["in_channels"] == base.vae.config["latent_channels"] == 8


def test_the_hash_sees_names_shapes_and_values_but_not_the_precision_of_storage() -> None:
    state = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([3.0])}
    same = {"b": torch.tensor([3.0]), "a": torch.tensor([1.0, 2.0], dtype=torch.float16)}
    assert state_sha256(state) == state_sha256(same)
    others = [
        {**state, "b": torch.tensor([4.0])},
        {**state, "b": torch.tensor([[3.0]])},
        {"a": state["a"], "c": state["b"]},
    ]
    assert all(state_sha256(other) != state_sha256(state) for other in others)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"autoencoder_widths": (16, 16)}, "autoencoder_widths needs four widths"),
        ({"unet_widths": (16, 40)}, "unet_widths must be multiples of 16, got 40"),
        ({"autoencoder_widths": (16, 16, 16, 24)}, "autoencoder_widths must be .* got 24"),
    ],
)
def test_widths_that_do_not_fit_are_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SmallBaseSettings.model_validate(given)
