"""PVTv2-B2 and MiT-B0 to B5: the transformer encoders of Polyp-PVT, CTNet and SegFormer.

Source: Hugging Face transformers (Apache-2.0), used through its public classes; the key maps from
the authors' published names (whai362/PVT, NVlabs/SegFormer; neither's code is here) were written
from a description of layers and tensor names.
Changes: LayerNorm epsilons are those of the authors' code, 1e-6 in blocks and after stages and
1e-5 elsewhere, so that published weights give the published numbers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn
from transformers import PvtV2Config, PvtV2Model, SegformerConfig, SegformerModel

BLOCK_EPSILON = 1e-6
OTHER_EPSILON = 1e-5
DROP_PATH = 0.1  # of the last block; grows linearly from the first


@dataclass(frozen=True)
class MitVariant:
    """Widths and depths of the four stages, and the width of SegFormer's head."""

    widths: tuple[int, int, int, int]
    depths: tuple[int, int, int, int]
    head: int


MIT_VARIANTS = {
    "b0": MitVariant((32, 64, 160, 256), (2, 2, 2, 2), 256),
    "b1": MitVariant((64, 128, 320, 512), (2, 2, 2, 2), 256),
    "b2": MitVariant((64, 128, 320, 512), (3, 4, 6, 3), 768),
    "b3": MitVariant((64, 128, 320, 512), (3, 4, 18, 3), 768),
    "b4": MitVariant((64, 128, 320, 512), (3, 8, 27, 3), 768),
    "b5": MitVariant((64, 128, 320, 512), (3, 6, 40, 3), 768),
}


class PvtV2B2(nn.Module):
    """Images (B, 3, H, W) to maps of 64, 128, 320 and 512 channels at strides 4 to 32."""

    def __init__(self) -> None:
        super().__init__()
        config = PvtV2Config(
            hidden_sizes=[64, 128, 320, 512],
            depths=[3, 4, 6, 3],
            num_attention_heads=[1, 2, 5, 8],
            sr_ratios=[8, 4, 2, 1],
            mlp_ratios=[8, 8, 4, 4],
            drop_path_rate=DROP_PATH,
        )
        self.body: nn.Module = PvtV2Model(config)
        set_epsilons(self.body)

    def forward(self, image: Tensor) -> list[Tensor]:
        return list(self.body(image, output_hidden_states=True).hidden_states)


class Mit(nn.Module):
    """Images (B, 3, H, W) to the four maps of a MiT variant at strides 4 to 32."""

    def __init__(self, variant: str) -> None:
        super().__init__()
        self.body: nn.Module = SegformerModel(mit_config(variant))
        set_epsilons(self.body)

    def forward(self, image: Tensor) -> list[Tensor]:
        return list(self.body(image, output_hidden_states=True).hidden_states)


def mit_config(variant: str, *, classes: int = 2) -> SegformerConfig:
    """Configuration of a MiT encoder, or of SegFormer with its head, by variant "b0" to "b5"."""
    shape = MIT_VARIANTS[variant]
    return SegformerConfig(
        hidden_sizes=list(shape.widths),
        depths=list(shape.depths),
        num_attention_heads=[1, 2, 5, 8],
        sr_ratios=[8, 4, 2, 1],
        mlp_ratios=[4, 4, 4, 4],
        drop_path_rate=DROP_PATH,
        decoder_hidden_size=shape.head,
        num_labels=classes,
    )


def set_epsilons(body: nn.Module) -> None:
    """Give every LayerNorm the epsilon of the authors' code."""
    for name, module in body.named_modules():
        if isinstance(module, nn.LayerNorm):
            inner = "patch_embed" in name or ".attention." in name
            module.eps = OTHER_EPSILON if inner else BLOCK_EPSILON


def pvt_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Published PVTv2 names, or those of transformers, to the names of `PvtV2B2.body`."""
    return _renamed(_without_prefix(state, "pvt_v2."), _PVT)


def mit_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Published MiT names, or those of hub checkpoints, to the names of `Mit.body`."""
    return _renamed(_without_prefix(state, "segformer."), _MIT + _MIT_HUB)


# Numbers in the published names count stages from 1, ours from 0: `{n}` is one less.
_PVT = (
    (r"patch_embed(\d)\.proj", "encoder.layers.{n}.patch_embedding.proj"),
    (r"patch_embed(\d)\.norm", "encoder.layers.{n}.patch_embedding.layer_norm"),
    (r"block(\d)\.(\d+)\.norm([12])", r"encoder.layers.{n}.blocks.\2.layer_norm_\3"),
    (r"block(\d)\.(\d+)\.attn\.q", r"encoder.layers.{n}.blocks.\2.attention.query"),
    (r"block(\d)\.(\d+)\.attn\.k", r"encoder.layers.{n}.blocks.\2.attention.key"),
    (r"block(\d)\.(\d+)\.attn\.v", r"encoder.layers.{n}.blocks.\2.attention.value"),
    (r"block(\d)\.(\d+)\.attn\.proj", r"encoder.layers.{n}.blocks.\2.attention.proj"),
    (r"block(\d)\.(\d+)\.attn\.sr", r"encoder.layers.{n}.blocks.\2.attention.spatial_reduction"),
    (r"block(\d)\.(\d+)\.attn\.norm", r"encoder.layers.{n}.blocks.\2.attention.layer_norm"),
    (r"block(\d)\.(\d+)\.mlp\.fc([12])", r"encoder.layers.{n}.blocks.\2.mlp.dense\3"),
    (r"block(\d)\.(\d+)\.mlp\.dwconv", r"encoder.layers.{n}.blocks.\2.mlp.dwconv"),
    (r"norm(\d)", "encoder.layers.{n}.layer_norm"),
)
_REDUCTION = "attention.sequence_reduction"
_MIT = (
    (r"patch_embed(\d)\.proj", "stages.{n}.patch_embeddings.proj"),
    (r"patch_embed(\d)\.norm", "stages.{n}.patch_embeddings.layer_norm"),
    (r"block(\d)\.(\d+)\.norm1", r"stages.{n}.blocks.\2.layernorm_before"),
    (r"block(\d)\.(\d+)\.norm2", r"stages.{n}.blocks.\2.layernorm_after"),
    (r"block(\d)\.(\d+)\.attn\.([qkv])", r"stages.{n}.blocks.\2.attention.\3_proj"),
    (r"block(\d)\.(\d+)\.attn\.proj", r"stages.{n}.blocks.\2.attention.o_proj"),
    (r"block(\d)\.(\d+)\.attn\.sr", rf"stages.{{n}}.blocks.\2.{_REDUCTION}.sequence_reduction"),
    (r"block(\d)\.(\d+)\.attn\.norm", rf"stages.{{n}}.blocks.\2.{_REDUCTION}.layer_norm"),
    (r"block(\d)\.(\d+)\.mlp\.", r"stages.{n}.blocks.\2.mlp."),
    (r"norm(\d)", "stages.{n}.layer_norm"),
)
_HUB_BLOCK = r"encoder\.block\.(\d+)\.(\d+)\."
_MIT_HUB = (
    (r"encoder\.patch_embeddings\.(\d)", r"stages.\1.patch_embeddings"),
    (rf"{_HUB_BLOCK}layer_norm_1", r"stages.\1.blocks.\2.layernorm_before"),
    (rf"{_HUB_BLOCK}layer_norm_2", r"stages.\1.blocks.\2.layernorm_after"),
    (rf"{_HUB_BLOCK}attention\.self\.query", r"stages.\1.blocks.\2.attention.q_proj"),
    (rf"{_HUB_BLOCK}attention\.self\.key", r"stages.\1.blocks.\2.attention.k_proj"),
    (rf"{_HUB_BLOCK}attention\.self\.value", r"stages.\1.blocks.\2.attention.v_proj"),
    (rf"{_HUB_BLOCK}attention\.self\.sr", rf"stages.\1.blocks.\2.{_REDUCTION}.sequence_reduction"),
    (rf"{_HUB_BLOCK}attention\.self\.layer_norm", rf"stages.\1.blocks.\2.{_REDUCTION}.layer_norm"),
    (rf"{_HUB_BLOCK}attention\.output\.dense", r"stages.\1.blocks.\2.attention.o_proj"),
    (rf"{_HUB_BLOCK}mlp\.dense([12])", r"stages.\1.blocks.\2.mlp.fc\3"),
    (rf"{_HUB_BLOCK}mlp\.dwconv", r"stages.\1.blocks.\2.mlp.dwconv"),
    (r"encoder\.layer_norm\.(\d)", r"stages.\1.layer_norm"),
)
_CLASSIFIERS = ("head.", "classifier.")


def _renamed(state: Mapping[str, Tensor], rules: tuple[tuple[str, str], ...]) -> dict[str, Tensor]:
    """Rename by the first rule that matches the start; names without a rule stay as they are."""
    renamed: dict[str, Tensor] = {}
    for name, tensor in _split_keys_and_values(state).items():
        if name.startswith(_CLASSIFIERS):
            continue  # of the ImageNet classifier
        for pattern, new in rules:
            if match := re.match(rf"{pattern}(?=\.|$|(?<=\.))", name):
                if "{n}" in new:
                    new = new.replace("{n}", str(int(match[1]) - 1))
                renamed[match.expand(new) + name[match.end() :]] = tensor
                break
        else:
            renamed[name] = tensor
    return renamed


def _split_keys_and_values(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The authors' code has keys and values in one matrix, transformers in two."""
    split: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if ".attn.kv." in name:
            key, value = tensor.chunk(2, 0)
            split[name.replace(".kv.", ".k.")] = key
            split[name.replace(".kv.", ".v.")] = value
        else:
            split[name] = tensor
    return split


def _without_prefix(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items()}
