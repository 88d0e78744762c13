"""Names of the authors' release (those of LDM and ControlNet) for our tensors, and back.

Every table follows from a diffusers config, so that any width, depth and placement of attention is
covered, not Stable Diffusion 1.5 alone. A table maps module to module; below a module the names
are equal. Knows names and shapes only, no values.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Literal, cast

from torch import Tensor

from siamese_diffusion.core.errors import WeightsError
from siamese_diffusion.models.settings import SPARSE_WIDTHS, ModelSettings

UNET = "model.diffusion_model."
CONTROL = "control_model."
VAE = "first_stage_model."
TEXT = "cond_stage_model.transformer."

Hint = Literal["dense", "sparse"]
Config = Mapping[str, object]

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_VAE_RESNET = {
    **{name: name for name in ("norm1", "conv1", "norm2", "conv2")},
    "conv_shortcut": "nin_shortcut",
}
_VAE_ATTENTION = {
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}
_DENSE = {
    "conv1": "0.initial_conv",
    **{f"conv{i}": f"0.conv_before_res{i}" for i in range(2, 6)},
    **{f"block{i}": f"0.layer{i}" for i in range(1, 6)},
    **{f"merge{i}": f"0.patch_merge{i}" for i in range(1, 4)},
    "out": "1",
}
# Convolutions of ControlNet's hint input alternate with activations, which have no tensors.
_SPARSE = {
    "conv_in": "0",
    **{f"blocks.{i}": str(2 * i + 2) for i in range(2 * len(SPARSE_WIDTHS) - 2)},
    "conv_out": str(4 * len(SPARSE_WIDTHS) - 2),
}


def release_names(names: Iterable[str], config: Config, *, hint: Hint) -> dict[str, str]:
    """Release name of each tensor of a `SiameseNetwork`.

    Args:
        names: Keys of its state dict: `encoder.*`, `decoder.*`, `control.*`.
        config: Config of the diffusers U-Net.
        hint: Its hint input.
    """
    parts = unet_modules(config)
    table = {f"encoder.{ours}": UNET + theirs for ours, theirs in parts.items()}
    table |= {f"decoder.{ours}": UNET + theirs for ours, theirs in parts.items()}
    for name in ("conv_norm_out", "conv_out"):
        table[f"decoder.head.{name}"] = UNET + parts[name]
    table |= {
        f"control.{ours}": CONTROL + theirs
        for ours, theirs in control_modules(config, hint).items()
    }
    return {name: _translate(name, table) for name in names}


def unet_names(names: Iterable[str], config: Config) -> dict[str, str]:
    """Release name of each tensor of a diffusers `UNet2DConditionModel`."""
    table = {ours: UNET + theirs for ours, theirs in unet_modules(config).items()}
    return {name: _translate(name, table) for name in names}


def vae_names(names: Iterable[str], config: Config) -> dict[str, str]:
    """Release name of each tensor of a diffusers `AutoencoderKL`."""
    table = {ours: VAE + theirs for ours, theirs in vae_modules(config).items()}
    return {name: _translate(name, table) for name in names}


def text_names(names: Iterable[str]) -> dict[str, str]:
    """Release name of each tensor of a `CLIPTextModel`, whose library changed its own names."""
    return {name: f"{TEXT}text_model.{name.removeprefix('text_model.')}" for name in names}


def unet_modules(config: Config) -> dict[str, str]:
    """Modules of a diffusers `UNet2DConditionModel` -> those of LDM's `UNetModel`.

    Raises:
        WeightsError: If the U-Net has blocks that Stable Diffusion 1.5 does not have.
    """
    down, up = _texts(config, "down_block_types"), _texts(config, "up_block_types")
    layers = _layers(config)
    strange = {*down, *up} - {
        *("DownBlock2D", "CrossAttnDownBlock2D", "UpBlock2D", "CrossAttnUpBlock2D"),
    }
    if strange:
        raise WeightsError(
            f"a U-Net with {', '.join(sorted(strange))} has no names in the authors' release",
            hint="use a base of Stable Diffusion 1.5's block types",
        )
    table = {
        "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2",
        "conv_in": "input_blocks.0.0",
        "conv_norm_out": "out.0",
        "conv_out": "out.2",
        **_below("mid_block.resnets.0", "middle_block.0", _RESNET),
        "mid_block.attentions.0": "middle_block.1",
        **_below("mid_block.resnets.1", "middle_block.2", _RESNET),
    }
    place = 1
    for i, kind in enumerate(down):
        for j in range(layers[i]):
            table |= _below(f"down_blocks.{i}.resnets.{j}", f"input_blocks.{place}.0", _RESNET)
            if kind.startswith("CrossAttn"):
                table[f"down_blocks.{i}.attentions.{j}"] = f"input_blocks.{place}.1"
            place += 1
        if i < len(down) - 1:
            table[f"down_blocks.{i}.downsamplers.0.conv"] = f"input_blocks.{place}.0.op"
            place += 1
    place = 0
    for i, kind in enumerate(up):
        attended = kind.startswith("CrossAttn")
        for j in range(layers[-1 - i] + 1):
            table |= _below(f"up_blocks.{i}.resnets.{j}", f"output_blocks.{place}.0", _RESNET)
            if attended:
                table[f"up_blocks.{i}.attentions.{j}"] = f"output_blocks.{place}.1"
            place += 1
        if i < len(up) - 1:
            last = f"output_blocks.{place - 1}.{2 if attended else 1}"
            table[f"up_blocks.{i}.upsamplers.0.conv"] = f"{last}.conv"
    return table


def control_modules(config: Config, hint: Hint) -> dict[str, str]:
    """Modules of a diffusers `ControlNetModel` -> those of the release's `ControlNet`."""
    table = {
        ours: theirs
        for ours, theirs in unet_modules(config).items()
        if not theirs.startswith(("out.", "output_blocks."))
    }
    zeros = 1 + sum(_layers(config)) + len(_layers(config)) - 1
    table |= {f"controlnet_down_blocks.{i}": f"zero_convs.{i}.0" for i in range(zeros)}
    table["controlnet_mid_block"] = "middle_block_out.0"
    parts = _DENSE if hint == "dense" else _SPARSE
    return table | _below("controlnet_cond_embedding", "input_hint_block", parts)


def vae_modules(config: Config) -> dict[str, str]:
    """Modules of a diffusers `AutoencoderKL` -> those of LDM's."""
    table = {name: name for name in ("quant_conv", "post_quant_conv")}
    levels, layers = len(_texts(config, "down_block_types")), _layers(config)[0]
    for half in ("encoder", "decoder"):
        table |= {
            f"{half}.conv_in": f"{half}.conv_in",
            f"{half}.conv_norm_out": f"{half}.norm_out",
            f"{half}.conv_out": f"{half}.conv_out",
            **_below(f"{half}.mid_block.attentions.0", f"{half}.mid.attn_1", _VAE_ATTENTION),
        }
        for i in range(2):
            table |= _below(
                f"{half}.mid_block.resnets.{i}", f"{half}.mid.block_{i + 1}", _VAE_RESNET
            )
    for i in range(levels):
        down, up = f"encoder.down_blocks.{i}", f"decoder.up_blocks.{i}"
        # LDM numbers the decoder's levels as the encoder's: from full resolution down
        their_down, their_up = f"encoder.down.{i}", f"decoder.up.{levels - 1 - i}"
        for j in range(layers):
            table |= _below(f"{down}.resnets.{j}", f"{their_down}.block.{j}", _VAE_RESNET)
        for j in range(layers + 1):
            table |= _below(f"{up}.resnets.{j}", f"{their_up}.block.{j}", _VAE_RESNET)
        table[f"{down}.downsamplers.0.conv"] = f"{their_down}.downsample.conv"
        table[f"{up}.upsamplers.0.conv"] = f"{their_up}.upsample.conv"
    return table


@dataclass(frozen=True)
class Architecture:
    """What shapes tell of a U-Net with its control branch.

    Attributes:
        widths: Channels of each level.
        residual_blocks: Of each level of the encoder.
        attention: Whether each level attends to the text.
        text_width: Width of the text features, 768 for SD 1.5; None without attention.
        latent_channels: 4 for SD 1.5.
    """

    widths: tuple[int, ...]
    residual_blocks: tuple[int, ...]
    attention: tuple[bool, ...]
    text_width: int | None
    latent_channels: int

    @classmethod
    def of_config(cls, config: Config) -> Architecture:
        """Of a diffusers U-Net."""
        return cls(
            widths=_numbers(config, "block_out_channels"),
            residual_blocks=_layers(config),
            attention=tuple(k.startswith("CrossAttn") for k in _texts(config, "down_block_types")),
            text_width=cast("int", config["cross_attention_dim"]),
            latent_channels=cast("int", config["in_channels"]),
        )

    @classmethod
    def of_release(cls, state: Mapping[str, Tensor], *, prefix: str = UNET) -> Architecture:
        """Of a state dict in release names.

        Raises:
            WeightsError: If it has no U-Net of these names.
        """
        first = state.get(f"{prefix}input_blocks.0.0.weight")
        if first is None:
            raise WeightsError(
                f"the file has no '{prefix}input_blocks.0.0.weight': it is no checkpoint of the "
                "authors' release",
                hint=f"give a file with {UNET}* and {CONTROL}* (merge ZeRO shards first)",
            )
        levels: list[list[tuple[int, bool]]] = [[]]
        place = 1
        while True:
            block = f"{prefix}input_blocks.{place}"
            if f"{block}.0.op.weight" in state:
                levels.append([])
            elif f"{block}.0.in_layers.2.weight" in state:
                width = state[f"{block}.0.in_layers.2.weight"].shape[0]
                levels[-1].append((width, f"{block}.1.proj_in.weight" in state))
            else:
                break
            place += 1
        text = [
            t.shape[1]
            for name, t in state.items()
            if name.startswith(prefix) and name.endswith("attn2.to_k.weight")
        ]
        return cls(
            widths=tuple(level[0][0] if level else 0 for level in levels),
            residual_blocks=tuple(len(level) for level in levels),
            attention=tuple(any(a for _, a in level) for level in levels),
            text_width=text[0] if text else None,
            latent_channels=first.shape[1],
        )

    def differences(self, other: Architecture) -> list[str]:
        """Lines `field: ours, other's` for all that differs."""
        return [
            f"{field.name}: {getattr(self, field.name)} against {getattr(other, field.name)}"
            for field in fields(self)
            if getattr(self, field.name) != getattr(other, field.name)
        ]


def hint_of_release(state: Mapping[str, Tensor]) -> ModelSettings:
    """Kind and widths of the hint input in a state dict of release names.

    Raises:
        WeightsError: If it has neither the dense nor ControlNet's hint input.
    """
    block = f"{CONTROL}input_hint_block."
    dense = [f"{block}{_DENSE[f'conv{i}']}.weight" for i in range(1, 6)]
    sparse = [f"{block}{place}.weight" for place in (0, 4, 8, 12)]
    for kind, places in (("dense", dense), ("sparse", sparse)):
        if all(place in state for place in places):
            widths = tuple(state[place].shape[0] for place in places)
            return ModelSettings.model_validate({"hint": kind, "hint_widths": widths})
    raise WeightsError(
        f"the file has no hint input: neither '{dense[0]}' nor '{sparse[0]}'",
        hint="give a checkpoint of Siamese-Diffusion or ControlNet",
    )


def unet_config(release: Config, *, sample_size: int) -> dict[str, object]:
    """Arguments of diffusers' `UNet2DConditionModel` for a U-Net config of LDM.

    Args:
        release: `model_channels, channel_mult, num_res_blocks, attention_resolutions, num_heads`
            (or `num_head_channels`) and `context_dim` of LDM's yaml files.
        sample_size: Side of the latents.
    """
    mult = _numbers(release, "channel_mult")
    widths = tuple(cast("int", release["model_channels"]) * m for m in mult)
    resolutions = _numbers(release, "attention_resolutions")
    attended = [2**level in resolutions for level in range(len(mult))]
    per_head = cast("int", release.get("num_head_channels", -1))
    heads = tuple(w // per_head for w in widths) if per_head > 0 else release["num_heads"]
    blocks = release["num_res_blocks"]
    if isinstance(blocks, Sequence):
        if len(set(blocks)) != 1:
            raise WeightsError(
                f"num_res_blocks {list(blocks)} differs by level, which diffusers' ControlNet "
                "cannot be"
            )
        blocks = blocks[0]
    return {
        "sample_size": sample_size,
        "in_channels": release.get("in_channels", 4),
        "out_channels": release.get("out_channels", 4),
        "block_out_channels": widths,
        "layers_per_block": blocks,
        "down_block_types": tuple("CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attended),
        "up_block_types": tuple(
            "CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attended)
        ),
        "attention_head_dim": heads,  # diffusers' name for the number of heads
        "cross_attention_dim": release["context_dim"],
        "transformer_layers_per_block": release.get("transformer_depth", 1),
        "use_linear_projection": release.get("use_linear_in_transformer", False),
    }


def _translate(name: str, table: Mapping[str, str]) -> str:
    module = name
    while module:
        module, _, _ = module.rpartition(".")
        if module in table:
            return table[module] + name[len(module) :]
    raise WeightsError(f"'{name}' has no name in the authors' release")


def _below(ours: str, theirs: str, parts: Mapping[str, str]) -> dict[str, str]:
    return {f"{ours}.{a}": f"{theirs}.{b}" for a, b in parts.items()}


def _layers(config: Config) -> tuple[int, ...]:
    layers, levels = config["layers_per_block"], len(_texts(config, "down_block_types"))
    if isinstance(layers, int):
        return (layers,) * levels
    return _numbers(config, "layers_per_block")


def _texts(config: Config, key: str) -> tuple[str, ...]:
    return tuple(cast("Sequence[str]", config[key]))


def _numbers(config: Config, key: str) -> tuple[int, ...]:
    return tuple(cast("Sequence[int]", config[key]))
