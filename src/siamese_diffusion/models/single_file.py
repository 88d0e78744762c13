"""Stable Diffusion 1.x from one checkpoint file, without network.

The architecture is read off the tensors' shapes; only the number of attention heads, the latent
factor and the schedule, which no shape tells, are those of Stable Diffusion 1.5. diffusers' own
loader is not used because it fetches configs from a hub. Such files hold no tokenizer: it is looked
for beside them, then in the hub's cache.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from siamese_diffusion.core.errors import WeightsError
from siamese_diffusion.core.weights import read_state_dict
from siamese_diffusion.models.ldm_names import (
    TEXT,
    UNET,
    VAE,
    Architecture,
    text_names,
    unet_names,
    vae_names,
)
from siamese_diffusion.models.scheduler import SD_SCHEDULE
from siamese_diffusion.models.tokenizer import VOCABULARY_FILE, has_tokenizer, read_tokenizer

_HEADS = 8
_HEAD_WIDTH = 64  # of CLIP's text encoder
_SIZE = 512  # pixels
_SCALE = 0.18215
_TOKENIZER_ID = "openai/clip-vit-large-patch14"


def read_single_file(path: Path) -> dict[str, Any]:
    """The components of a base by name, float32.

    Args:
        path: `.safetensors`, or `.ckpt`/`.pth` of tensors alone.

    Raises:
        WeightsError: If it is damaged, holds code, is another kind of model, lacks a part, or no
            tokenizer is found.
    """
    state = {
        name: tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in read_state_dict(path).items()
    }
    missing = [part for part in (UNET, VAE, TEXT) if not any(n.startswith(part) for n in state)]
    if missing:
        raise WeightsError(
            f"base file '{path}' is no whole checkpoint of Stable Diffusion 1.5: it has no "
            f"{' and no '.join(f'{part}*' for part in missing)}",
            hint="give the full checkpoint, or a diffusers folder",
        )
    tokenizer = _tokenizer(path)
    try:
        return {
            "unet": _unet(state),
            "vae": _vae(state),
            "text_encoder": _text_encoder(state),
            "tokenizer": tokenizer,
            "scheduler": DDIMScheduler(**SD_SCHEDULE),
        }
    except WeightsError as error:
        raise WeightsError(f"base file '{path}': {error.message}", hint=error.hint) from error


def copy_weights(module: nn.Module, state: Mapping[str, Tensor], names: Mapping[str, str]) -> bool:
    """Copy tensors of LDM names into a module; True if any value changed.

    Args:
        module: Its parameters and buffers are overwritten, or adopted where it is on "meta".
        state: The checkpoint.
        names: Our name to the checkpoint's.

    Raises:
        WeightsError: Listing everything that is missing or misshapen; nothing is copied then.
    """
    own = module.state_dict()
    problems, found = [], {}
    for ours, theirs in names.items():
        if theirs not in state:
            problems.append(f"missing {theirs}")
            continue
        tensor = state[theirs]
        if tensor.ndim == 4 and own[ours].ndim == 2 and tensor.shape[2:] == (1, 1):
            tensor = tensor[:, :, 0, 0]  # a 1x1 convolution of LDM is a linear layer of ours
        if tensor.shape != own[ours].shape:
            problems.append(
                f"{theirs} is {tuple(tensor.shape)}, the base needs {tuple(own[ours].shape)}"
            )
        found[ours] = tensor
    if problems:
        shown = "; ".join(problems[:10])
        more = f"; and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise WeightsError(
            f"the checkpoint does not fit: {shown}{more}",
            hint="give a whole checkpoint, and with --base what it was trained from",
        )
    fresh = any(tensor.is_meta for tensor in own.values())
    changed = fresh or any(not torch.equal(own[name], tensor) for name, tensor in found.items())
    if changed:
        module.load_state_dict(found, strict=False, assign=fresh)
    return changed


def _unet(state: Mapping[str, Tensor]) -> UNet2DConditionModel:
    found = Architecture.of_release(state)
    blocks = set(found.residual_blocks)
    projection = next((t for n, t in state.items() if n.endswith("1.proj_in.weight")), None)
    if len(blocks) != 1 or projection is None or projection.ndim != 4 or not found.text_width:
        raise WeightsError(
            "it is not of Stable Diffusion 1.x (Stable Diffusion 2 and XL are built otherwise)",
            hint="the method needs Stable Diffusion 1.5 or a model fine-tuned from it",
        )
    config = {
        "sample_size": _SIZE // 8,
        "in_channels": found.latent_channels,
        "out_channels": state[f"{UNET}out.2.weight"].shape[0],
        "block_out_channels": found.widths,
        "layers_per_block": blocks.pop(),
        "attention_head_dim": _HEADS,  # diffusers' name for the number of heads
        "cross_attention_dim": found.text_width,
        "down_block_types": tuple(
            "CrossAttnDownBlock2D" if a else "DownBlock2D" for a in found.attention
        ),
        "up_block_types": tuple(
            "CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(found.attention)
        ),
    }
    with torch.device("meta"):
        unet = UNet2DConditionModel(**config)
    copy_weights(unet, state, unet_names(unet.state_dict(), unet.config))
    return unet


def _vae(state: Mapping[str, Tensor]) -> AutoencoderKL:
    down = f"{VAE}encoder.down."
    levels = _count(state, down)
    with torch.device("meta"):
        vae = AutoencoderKL(
            block_out_channels=tuple(
                state[f"{down}{i}.block.0.conv1.weight"].shape[0] for i in range(levels)
            ),
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            layers_per_block=_count(state, f"{down}0.block."),
            latent_channels=state[f"{VAE}post_quant_conv.weight"].shape[0],
            sample_size=_SIZE,
            scaling_factor=_SCALE,
        )
    copy_weights(vae, state, vae_names(vae.state_dict(), vae.config))
    return vae


def _text_encoder(state: Mapping[str, Tensor]) -> CLIPTextModel:
    table = state.get(f"{TEXT}text_model.embeddings.token_embedding.weight")
    if table is None:
        raise WeightsError(
            f"it has no {TEXT}text_model: its text encoder is not that of Stable Diffusion 1.x"
        )
    layers = f"{TEXT}text_model.encoder.layers."
    width = table.shape[1]
    encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=table.shape[0],
            hidden_size=width,
            intermediate_size=state[f"{layers}0.mlp.fc1.weight"].shape[0],
            num_hidden_layers=_count(state, layers),
            num_attention_heads=max(1, width // _HEAD_WIDTH),
        )
    )
    names = text_names(encoder.state_dict())
    copy_weights(encoder, state, {n: r for n, r in names.items() if "position_ids" not in n})
    return encoder


def _tokenizer(path: Path) -> CLIPTokenizer:
    for folder in (path.parent / "tokenizer", path.parent):
        if has_tokenizer(folder):
            return read_tokenizer(folder)
    try:
        return CLIPTokenizer.from_pretrained(_TOKENIZER_ID, local_files_only=True)
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"base file '{path}' has no tokenizer beside it, and '{_TOKENIZER_ID}' is not in the "
            "hub's cache",
            hint=f"put CLIP's vocab.json and merges.txt, or {VOCABULARY_FILE}, into "
            f"'{path.parent}', or give a diffusers folder",
        ) from error


def _count(state: Mapping[str, Tensor], prefix: str) -> int:
    """How many numbers follow a prefix, 0 to n - 1."""
    found = {name[len(prefix) :].partition(".")[0] for name in state if name.startswith(prefix)}
    return sum(number.isdigit() for number in found)
