"""Names of the release: against diffusers' own converters, and the toy model of the authors."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import (
    convert_controlnet_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
)
from safetensors import safe_open

from siamese_diffusion.core.errors import WeightsError
from siamese_diffusion.models.ldm_names import (
    CONTROL,
    UNET,
    VAE,
    Architecture,
    hint_of_release,
    release_names,
    unet_config,
    unet_modules,
    vae_names,
)
from siamese_diffusion.models.sd15 import UNET_CONFIG
from siamese_diffusion.models.settings import ModelSettings
from siamese_diffusion.models.siamese import SiameseNetwork

SMALL = {
    "sample_size": 8,
    "block_out_channels": (16, 32, 32),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 2,
    "attention_head_dim": 2,
    "cross_attention_dim": 8,
    "norm_num_groups": 8,
}
TOY = {
    "model_channels": 32,
    "channel_mult": [1, 2],
    "num_res_blocks": 1,
    "attention_resolutions": [2, 1],
    "num_heads": 4,
    "context_dim": 16,
}


def small_network(hint: str = "dense") -> SiameseNetwork:
    torch.manual_seed(0)
    settings = ModelSettings.model_validate({"hint": hint})
    return SiameseNetwork(UNet2DConditionModel(**SMALL), settings)


def in_release_names(network: SiameseNetwork, hint: str = "dense") -> dict[str, torch.Tensor]:
    state = network.state_dict()
    names = release_names(state, SMALL, hint="dense" if hint == "dense" else "sparse")
    return {names[name]: tensor for name, tensor in state.items()}


def test_the_unet_is_named_as_diffusers_own_converter_reads_it() -> None:
    torch.manual_seed(0)
    unet = UNet2DConditionModel(**SMALL)
    network = SiameseNetwork(unet, ModelSettings())
    ours = {k: v for k, v in in_release_names(network).items() if k.startswith(UNET)}
    converted = convert_ldm_unet_checkpoint(ours, dict(unet.config))
    expected = unet.state_dict()
    assert converted.keys() == expected.keys()
    assert all(torch.equal(converted[name], expected[name]) for name in expected)


def test_the_control_branch_is_named_as_diffusers_own_converter_reads_it() -> None:
    network = small_network("sparse")
    state = in_release_names(network, "sparse")
    ours = {k: v for k, v in state.items() if k.startswith(CONTROL)}
    converted = convert_controlnet_checkpoint(ours, dict(network.control.config))
    expected = network.control.state_dict()
    assert converted.keys() == expected.keys()
    assert all(torch.equal(converted[name], expected[name]) for name in expected)


@pytest.mark.parametrize("attention", [True, False], ids=["attention", "no_attention"])
def test_the_autoencoder_is_named_as_diffusers_own_converter_reads_it(attention: bool) -> None:
    vae = AutoencoderKL(
        block_out_channels=(16, 16, 32, 32),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        norm_num_groups=8,
        mid_block_add_attention=attention,
    )
    state = vae.state_dict()
    names = vae_names(state, vae.config)
    pointwise = {n for n in state if ".attentions." in n and state[n].ndim == 2}
    ours = {names[n]: t[:, :, None, None] if n in pointwise else t for n, t in state.items()}
    assert all(name.startswith(VAE) for name in ours)
    converted = convert_ldm_vae_checkpoint(ours, dict(vae.config))
    assert converted.keys() == state.keys()
    assert all(torch.equal(converted[name], state[name]) for name in state)


def test_every_tensor_of_the_authors_toy_model_has_a_place(shared: Path) -> None:
    unet = UNet2DConditionModel(**unet_config(TOY, sample_size=8))
    with safe_open(shared / "parity/siamese/weights_fp16.safetensors", "pt") as file:
        stored = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    network = SiameseNetwork(unet, ModelSettings(hint_widths=(16, 32, 64, 128, 256)))
    names = release_names(network.state_dict(), unet.config, hint="dense")
    assert {names[n]: tuple(t.shape) for n, t in network.state_dict().items()} == stored


def test_stable_diffusion_is_recognised_by_its_shapes() -> None:
    with torch.device("meta"):
        network = SiameseNetwork(UNet2DConditionModel(**UNET_CONFIG), ModelSettings())
    names = release_names(network.state_dict(), UNET_CONFIG, hint="dense")
    state = {names[n]: t for n, t in network.state_dict().items()}
    assert f"{UNET}output_blocks.11.1.transformer_blocks.0.attn2.to_v.weight" in state
    assert f"{CONTROL}zero_convs.11.0.weight" in state
    found = Architecture.of_release(state)
    assert found == Architecture((320, 640, 1280, 1280), (2,) * 4, (True,) * 3 + (False,), 768, 4)
    assert found.differences(Architecture.of_config(UNET_CONFIG | {"in_channels": 4})) == []


def test_differences_of_architecture_name_both_sides() -> None:
    config = SMALL | {"in_channels": 4}
    ours = Architecture.of_config(config)
    other = Architecture.of_config(config | {"block_out_channels": (16, 32, 64)})
    assert ours.differences(other) == ["widths: (16, 32, 32) against (16, 32, 64)"]


@pytest.mark.parametrize("hint", ["dense", "sparse"])
def test_the_hint_input_is_recognised_with_its_widths(hint: str) -> None:
    network = small_network(hint)
    found = hint_of_release(in_release_names(network, hint))
    assert found.hint == hint
    expected = (4, 4, 4, 8, 16) if hint == "dense" else (4, 4, 6, 16)
    assert found.hint_widths == expected


def test_a_file_without_hint_input_is_refused() -> None:
    with pytest.raises(WeightsError, match=r"no hint input: neither 'control_model\.input_hint"):
        hint_of_release({f"{CONTROL}zero_convs.0.0.weight": torch.zeros(1)})


def test_a_file_without_unet_is_refused() -> None:
    with pytest.raises(WeightsError, match=r"no 'model\.diffusion_model\.input_blocks\.0\.0"):
        Architecture.of_release({f"{CONTROL}zero_convs.0.0.weight": torch.zeros(1)})


def test_blocks_that_stable_diffusion_lacks_are_refused_by_name() -> None:
    config = SMALL | {"down_block_types": ("AttnDownBlock2D",) * 3}
    with pytest.raises(WeightsError, match="AttnDownBlock2D"):
        unet_modules(config)


def test_a_depth_that_differs_by_level_is_refused() -> None:
    with pytest.raises(WeightsError, match=r"num_res_blocks \[1, 2\]"):
        unet_config(TOY | {"num_res_blocks": [1, 2]}, sample_size=8)


def test_heads_follow_from_channels_per_head() -> None:
    config = unet_config(TOY | {"num_head_channels": 16}, sample_size=8)
    assert config["attention_head_dim"] == (2, 4)
