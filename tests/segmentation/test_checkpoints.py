"""Key maps, on checkpoints made here under the published names."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
import torch
from torch import Tensor

from siamese_diffusion.core.errors import ConfigError, WeightsError
from siamese_diffusion.models.nets.pyramid import mit_names, pvt_names
from siamese_diffusion.segmentation import SEGMENTERS
from siamese_diffusion.segmentation.base import Segmenter
from siamese_diffusion.segmentation.checkpoints import load_encoder, load_published
from siamese_diffusion.segmentation.sanet import SANet
from siamese_diffusion.segmentation.segformer import SegFormer
from siamese_diffusion.segmentation.unet import UNet


def published_pyramid(
    widths: tuple[int, ...], depths: tuple[int, ...], ratios: tuple[int, ...]
) -> dict[str, Tensor]:
    """An ImageNet checkpoint in the naming that PVTv2 and MiT share, with its classifier."""
    shapes: dict[str, tuple[int, ...]] = {}
    c_in = 3
    for i, (c, depth, ratio, sr) in enumerate(
        zip(widths, depths, ratios, (8, 4, 2, 1), strict=True), start=1
    ):
        kernel = 7 if i == 1 else 3
        shapes[f"patch_embed{i}.proj.weight"] = (c, c_in, kernel, kernel)
        shapes[f"patch_embed{i}.proj.bias"] = (c,)
        for part in ("weight", "bias"):
            shapes[f"patch_embed{i}.norm.{part}"] = (c,)
            shapes[f"norm{i}.{part}"] = (c,)
        for j in range(depth):
            block = f"block{i}.{j}."
            for norm in ("norm1", "norm2"):
                shapes[f"{block}{norm}.weight"] = shapes[f"{block}{norm}.bias"] = (c,)
            for name, (rows, columns) in {
                "attn.q": (c, c),
                "attn.kv": (2 * c, c),
                "attn.proj": (c, c),
                "mlp.fc1": (ratio * c, c),
                "mlp.fc2": (c, ratio * c),
            }.items():
                shapes[f"{block}{name}.weight"] = (rows, columns)
                shapes[f"{block}{name}.bias"] = (rows,)
            shapes[f"{block}mlp.dwconv.dwconv.weight"] = (ratio * c, 1, 3, 3)
            shapes[f"{block}mlp.dwconv.dwconv.bias"] = (ratio * c,)
            if sr > 1:
                shapes[f"{block}attn.sr.weight"] = (c, c, sr, sr)
                for name in ("attn.sr.bias", "attn.norm.weight", "attn.norm.bias"):
                    shapes[f"{block}{name}"] = (c,)
        c_in = c
    shapes["head.weight"], shapes["head.bias"] = (1000, c_in), (1000,)
    torch.manual_seed(0)
    return {name: 0.02 * torch.randn(shape) for name, shape in shapes.items()}


def encoder_checkpoint(name: str) -> dict[str, Tensor]:
    if name == "sanet":
        torch.manual_seed(5)
        own = SANet().get_submodule("encoder").state_dict()
        return {**own, "fc.weight": torch.zeros(1000, 2048), "fc.bias": torch.zeros(1000)}
    if name == "polyp-pvt":
        return published_pyramid((64, 128, 320, 512), (3, 4, 6, 3), (8, 8, 4, 4))
    if name == "ctnet":
        return published_pyramid((64, 128, 320, 512), (3, 4, 18, 3), (4, 4, 4, 4))
    return published_pyramid((32, 64, 160, 256), (2, 2, 2, 2), (4, 4, 4, 4))


def build(name: str) -> Segmenter:
    torch.manual_seed(0)
    return cast("Callable[[], Segmenter]", SEGMENTERS[name])()


@pytest.mark.parametrize("name", [n for n in SEGMENTERS if n != "unet"])
def test_imagenet_checkpoints_load_by_path_whatever_was_there(name: str, tmp_path: Path) -> None:
    model, state = build(name), encoder_checkpoint(name)
    path = tmp_path / "encoder.pth"
    torch.save({"state_dict": {f"module.{n}": t for n, t in state.items()}}, path)
    load_encoder(model, path)
    own = model.get_submodule("encoder").state_dict()
    sizes = sorted(float(t.double().sum()) for t in own.values() if t.is_floating_point())
    given = {n: t for n, t in state.items() if not n.startswith(("head.", "fc."))}
    split = [p for n, t in given.items() for p in (t.chunk(2) if ".kv." in n else (t,))]
    assert sizes == pytest.approx(
        sorted(float(t.double().sum()) for t in split if t.is_floating_point())
    )


def test_keys_come_before_values_in_the_published_matrix() -> None:
    state = encoder_checkpoint("segformer")
    names = mit_names(state)
    key, value = state["block2.1.attn.kv.weight"].chunk(2, 0)
    assert torch.equal(names["stages.1.blocks.1.attention.k_proj.weight"], key)
    assert torch.equal(names["stages.1.blocks.1.attention.v_proj.weight"], value)


def test_hub_names_of_both_encoders_are_known() -> None:
    assert list(
        mit_names(
            {
                "segformer.encoder.block.3.0.attention.self.sr.weight": torch.zeros(1),
                "segformer.encoder.patch_embeddings.0.layer_norm.bias": torch.zeros(1),
                "segformer.encoder.block.0.1.mlp.dense2.bias": torch.zeros(1),
                "segformer.encoder.layer_norm.2.weight": torch.zeros(1),
                "classifier.weight": torch.zeros(1),
            }
        )
    ) == [
        "stages.3.blocks.0.attention.sequence_reduction.sequence_reduction.weight",
        "stages.0.patch_embeddings.layer_norm.bias",
        "stages.0.blocks.1.mlp.fc2.bias",
        "stages.2.layer_norm.weight",
    ]
    own = "pvt_v2.encoder.layers.0.blocks.0.attention.query.weight"
    assert list(pvt_names({own: torch.zeros(1)})) == [own.removeprefix("pvt_v2.")]


def test_a_whole_segformer_of_the_release_loads() -> None:
    model = SegFormer()
    encoder = encoder_checkpoint("segformer")
    state = {f"backbone.{n}": t for n, t in encoder.items() if not n.startswith("head.")}
    for n, width in enumerate((32, 64, 160, 256), start=1):
        state[f"decode_head.linear_c{n}.proj.weight"] = torch.randn(256, width)
        state[f"decode_head.linear_c{n}.proj.bias"] = torch.zeros(256)
    state["decode_head.linear_fuse.conv.weight"] = torch.randn(256, 1024, 1, 1)
    for part in ("weight", "bias", "running_mean", "running_var"):
        state[f"decode_head.linear_fuse.bn.{part}"] = torch.rand(256)
    state["decode_head.linear_pred.weight"] = torch.randn(2, 256, 1, 1)
    state["decode_head.linear_pred.bias"] = torch.zeros(2)
    state["decode_head.conv_seg.weight"] = torch.zeros(2, 256, 1, 1)
    load_published(model, state, where="release")
    fused = model.head.state_dict()["linear_projections.3.proj.weight"]
    assert torch.equal(fused, state["decode_head.linear_c4.proj.weight"])


def test_an_encoder_of_another_network_is_refused_with_what_differs(tmp_path: Path) -> None:
    path = tmp_path / "mit_b0.pth"
    torch.save(encoder_checkpoint("segformer"), path)
    with pytest.raises(WeightsError, match=r"mit_b0\.pth' is of another network") as e:
        load_encoder(build("sanet"), path)
    assert re.search(r"\d+ missing: conv1\.0\.weight; .*and \d+ more", e.value.message)
    with pytest.raises(WeightsError, match=r"proj\.weight \(32, 3, 7, 7\), needs \(64, 3, 7, 7\)"):
        load_encoder(build("ctnet"), path)


def test_networks_without_published_weights_say_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="UNet has no encoder with published ImageNet weights"):
        load_encoder(UNet(), tmp_path / "any.pth")
    with pytest.raises(ConfigError, match="no checkpoint of this U-Net has been published"):
        load_published(UNet(), {}, where="file")
