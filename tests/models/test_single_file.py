"""Stable Diffusion from one file: any width, no network, no code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

from siamese_diffusion.core.errors import WeightsError
from siamese_diffusion.models.base import load_base, state_sha256
from siamese_diffusion.models.ldm_names import TEXT, UNET, VAE, text_names, unet_names, vae_names
from siamese_diffusion.models.tokenizer import byte_tokenizer

Parts = dict[str, Any]


@pytest.fixture(scope="module")
def parts() -> Parts:
    """Stable Diffusion 1.x's classes and block order at widths 32 and 64."""
    torch.manual_seed(0)
    widths = (32, 32, 64, 64)
    return {
        "unet": UNet2DConditionModel(
            sample_size=64,
            block_out_channels=widths,
            down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
            up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
            layers_per_block=2,
            attention_head_dim=8,
            cross_attention_dim=64,
        ),
        "vae": AutoencoderKL(
            block_out_channels=widths,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
            latent_channels=4,
        ),
        "text_encoder": CLIPTextModel(
            CLIPTextConfig(
                hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=1
            )
        ),
    }


@pytest.fixture
def state(parts: Parts) -> dict[str, Tensor]:
    """The same weights under LDM's names, with what else such files hold."""
    unet, vae, text = (parts[name].state_dict() for name in ("unet", "vae", "text_encoder"))
    names = {
        **{unet_names(unet, parts["unet"].config)[n]: t for n, t in unet.items()},
        **{vae_names(vae, parts["vae"].config)[n]: t for n, t in vae.items()},
        **{text_names(text)[n]: t for n, t in text.items()},
    }
    for name, tensor in names.items():
        if ".attn_1." in name and name.endswith("weight") and tensor.ndim == 2:
            names[name] = tensor[:, :, None, None].contiguous()
    names["betas"] = torch.zeros(1000)
    names[f"{TEXT}text_model.embeddings.position_ids"] = torch.arange(77)[None]
    return {name: tensor.clone() for name, tensor in names.items()}


def with_tokenizer(folder: Path) -> Path:
    byte_tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["safetensors", "ckpt", "half"])
def test_a_file_gives_the_networks_it_was_made_of(
    parts: Parts, state: dict[str, Tensor], tmp_path: Path, kind: str
) -> None:
    with_tokenizer(tmp_path)
    path = tmp_path / f"model.{'safetensors' if kind == 'half' else kind}"
    if kind == "half":
        state = {n: t.half() if t.is_floating_point() else t for n, t in state.items()}
    torch.save({"state_dict": state}, path) if kind == "ckpt" else save_file(state, path)
    base = load_base(path)
    assert (base.kind, base.size, base.first_width) == ("file", 512, 32)
    for name, module in parts.items():
        loaded = getattr(base, name)
        assert all(p.dtype == torch.float32 and not p.requires_grad for p in loaded.parameters())
        if kind == "half":
            continue
        assert state_sha256(loaded.state_dict()) == state_sha256(module.state_dict())
    assert base.vae.config["scaling_factor"] == 0.18215
    latent, context = torch.randn(1, 4, 8, 8), base.embed(["A photo of a polyp."])
    with torch.no_grad():
        ours = base.unet(latent, torch.tensor([7]), context).sample
        theirs = parts["unet"](latent, torch.tensor([7]), context).sample
    # The weights agree to the bit, as said above; a file's memory may be aligned otherwise, and on
    # some processors products are then summed in another order.
    torch.testing.assert_close(ours, theirs, atol=1e-2 if kind == "half" else 1e-5, rtol=0)


def test_a_tokenizer_folder_beside_the_file_is_found(
    state: dict[str, Tensor], tmp_path: Path
) -> None:
    with_tokenizer(tmp_path / "tokenizer")
    save_file(state, tmp_path / "model.safetensors")
    assert len(load_base(tmp_path / "model.safetensors").tokenizer) == 514


def test_without_tokenizer_it_says_which_files_to_put_where(
    state: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(*args: object, **kwargs: object) -> None:
        raise OSError("not cached")

    monkeypatch.setattr("transformers.CLIPTokenizer.from_pretrained", absent)
    path = tmp_path / "model.safetensors"
    save_file(state, path)
    with pytest.raises(WeightsError, match=re.escape(f"'{path}' has no tokenizer beside it")) as e:
        load_base(path)
    assert f"merges.txt, or bpe_simple_vocab_16e6.txt.gz, into '{tmp_path}'" in str(e.value.hint)


@pytest.mark.parametrize("part", [UNET, VAE, TEXT])
def test_a_part_that_is_missing_is_named(
    state: dict[str, Tensor], tmp_path: Path, part: str
) -> None:
    kept = {name: tensor for name, tensor in state.items() if not name.startswith(part)}
    save_file(kept, tmp_path / "model.safetensors")
    message = f"no whole checkpoint of Stable Diffusion 1.5: it has no {part}*"
    with pytest.raises(WeightsError, match=re.escape(message)):
        load_base(tmp_path / "model.safetensors")


def test_a_missing_tensor_is_named_with_the_file(state: dict[str, Tensor], tmp_path: Path) -> None:
    del state[f"{UNET}time_embed.0.bias"]
    path = tmp_path / "model.safetensors"
    save_file(state, path)
    with_tokenizer(tmp_path)
    with pytest.raises(WeightsError, match=r"model\.safetensors.*missing .*time_embed\.0\.bias"):
        load_base(path)


def test_stable_diffusion_2_is_refused(state: dict[str, Tensor], tmp_path: Path) -> None:
    for name in [n for n in state if n.endswith("1.proj_in.weight")]:
        state[name] = state[name][:, :, 0, 0].contiguous()  # linear there
    path = tmp_path / "model.safetensors"
    save_file(state, path)
    with_tokenizer(tmp_path)
    with pytest.raises(WeightsError, match=r"not of Stable Diffusion 1\.x"):
        load_base(path)
