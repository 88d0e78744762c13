"""T2I-Adapter: shapes and sizes of the document, and diffusers' own forward as the reference."""

from __future__ import annotations

import pytest
import torch
from diffusers import T2IAdapter, UNet2DConditionModel
from torch import Tensor, nn

from reference.literal import disturb, toy_batch, toy_unet
from siamese_diffusion.models.adapter import AdapterNetwork
from siamese_diffusion.models.sd15 import UNET_CONFIG
from siamese_diffusion.models.settings import SmallBaseSettings
from siamese_diffusion.models.small import build_unet


def toy() -> tuple[UNet2DConditionModel, AdapterNetwork]:
    torch.manual_seed(0)
    network = AdapterNetwork(toy_unet())
    disturb(network)
    return network.unet, network


def stock(unet: UNet2DConditionModel, batch: dict[str, Tensor], features: list[Tensor]) -> Tensor:
    out: Tensor = unet(
        batch["z0"],
        batch["t"],
        batch["c_text"],
        down_intrablock_additional_residuals=features,
        return_dict=False,
    )[0]
    return out


def test_at_full_width_and_384_px_the_features_are_those_of_the_document() -> None:
    with torch.device("meta"):
        network = AdapterNetwork(UNet2DConditionModel(**UNET_CONFIG))
        features = network.features(torch.empty(1, 3, 384, 384))
    shapes = [tuple(feature.shape[1:]) for feature in features]
    assert shapes == [(320, 48, 48), (640, 24, 24), (1280, 12, 12), (1280, 6, 6)]
    assert network.adapter.total_downscale_factor == 64


@pytest.mark.parametrize(("channels", "expected"), [(3, 77_369_280), (1, 77_000_640)])
def test_at_full_width_the_adapter_has_77_million_parameters(channels: int, expected: int) -> None:
    with torch.device("meta"):
        adapter = T2IAdapter(channels, [320, 640, 1280, 1280], 2, 8, "full_adapter")
    assert sum(p.numel() for p in adapter.parameters()) == expected


def test_layer_by_layer_it_is_the_table_of_the_document() -> None:
    with torch.device("meta"):
        body = AdapterNetwork(UNet2DConditionModel(**UNET_CONFIG)).adapter.adapter
    assert body.unshuffle.downscale_factor == 8
    assert (body.conv_in.in_channels, body.conv_in.out_channels) == (192, 320)
    widths = [320, 640, 1280, 1280]
    for level, (before, after) in enumerate(zip([320, *widths], widths, strict=False)):
        block = body.body[level]
        assert (block.downsample is not None) == (level > 0)
        assert (block.in_conv is not None) == (before != after)
        kernels = [(c.kernel_size, c.out_channels) for c in block.resnets.modules()
                   if isinstance(c, nn.Conv2d)]  # fmt: skip
        assert kernels == [((3, 3), after), ((1, 1), after)] * 2
        norms = [m for m in block.modules() if isinstance(m, nn.GroupNorm | nn.BatchNorm2d)]
        assert not norms


def test_the_prediction_equals_diffusers_hook_on_a_copied_list() -> None:
    unet, network = toy()
    batch = toy_batch([3, 700])
    with torch.no_grad():
        features = network.features(batch["mask"])
        ours = network(batch["z0"], batch["t"], batch["c_text"], features)
        # the in-place addition of the hook changes the list's tensors at no level of this U-Net
        expected = stock(unet, batch, [feature.clone() for feature in features])
    torch.testing.assert_close(ours, expected)


def test_diffusers_pops_from_the_list_it_is_given_and_we_do_not() -> None:
    unet, network = toy()
    batch = toy_batch([3, 700])
    with torch.no_grad():
        features = network.features(batch["mask"])
        before = [feature.clone() for feature in features]
        first = network(batch["z0"], batch["t"], batch["c_text"], features)
        second = network(batch["z0"], batch["t"], batch["c_text"], features)
        given = list(features)
        stock(unet, batch, given)
    assert given == []  # the trap
    assert torch.equal(first, second)
    assert all(torch.equal(a, b) for a, b in zip(before, features, strict=True))


def test_zero_features_reproduce_the_base() -> None:
    unet, network = toy()
    batch = toy_batch([3, 700])
    with torch.no_grad():
        zeros = tuple(torch.zeros_like(f) for f in network.features(batch["mask"]))
        ours = network(batch["z0"], batch["t"], batch["c_text"], zeros)
        base = unet(batch["z0"], batch["t"], batch["c_text"], return_dict=False)[0]
    assert torch.equal(ours, base)


def test_on_a_level_without_attention_features_join_before_the_downsampling() -> None:
    torch.manual_seed(0)
    small = SmallBaseSettings(unet_widths=(16, 32, 48), unet_layers=1, text_width=32)
    network = AdapterNetwork(build_unet(small, size=64))
    disturb(network)
    generator = torch.Generator().manual_seed(0)
    zt = torch.randn(1, 4, 8, 8, generator=generator)
    c_text = torch.randn(1, 5, 32, generator=generator)
    t = torch.tensor([500])
    features = list(network.features(torch.ones(1, 3, 64, 64)))
    assert [tuple(f.shape[1:]) for f in features] == [(16, 8, 8), (32, 4, 4), (48, 2, 2)]

    def added(module: nn.Module, given: object, out: Tensor) -> Tensor:
        return out + features[0]

    with torch.no_grad():
        ours = network(zt, t, c_text, tuple(features))
        handle = network.unet.down_blocks[0].resnets[-1].register_forward_hook(added)
        zeros = torch.zeros_like(features[0])
        expected = network(zt, t, c_text, (zeros, *features[1:]))
        handle.remove()
    torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradient_flows_through_the_frozen_base_to_every_adapter_weight(
    checkpointing: bool,
) -> None:
    _, network = toy()
    network.gradient_checkpointing = checkpointing
    batch = toy_batch([3, 700])
    features = network.features(batch["mask"])
    prediction = network(batch["z0"], batch["t"], batch["c_text"], features)
    torch.autograd.backward(prediction.square().mean())
    assert all(p.grad is not None and bool(p.grad.any()) for p in network.adapter.parameters())
    assert not any(p.grad is not None for p in network.unet.parameters())
