"""ArSDM's U-Net: sizes of the document, where the mask acts, and equal results by other means."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from reference.literal import disturb
from siamese_diffusion.core.config import build
from siamese_diffusion.core.errors import ConfigError
from siamese_diffusion.models.settings import SpadeUNetSettings
from siamese_diffusion.models.spade_unet import (
    Attention,
    ResidualBlock,
    Spade,
    SpadeUNet,
    frequencies,
)

SMALL = SpadeUNetSettings(
    width=32, multipliers=(1, 2), blocks=1, attention_factors=(2,), head_channels=16
)


def small(*, fresh: bool = False) -> SpadeUNet:
    torch.manual_seed(0)
    network = SpadeUNet(SMALL)
    if not fresh:
        disturb(network)
    return network


def inputs(n: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    draws = torch.Generator().manual_seed(0)
    lesion = (torch.rand(n, 1, 16, 16, generator=draws) > 0.7).float()
    x = torch.randn(n, 3, 16, 16, generator=draws)
    return x, torch.tensor([3, 650][:n]), torch.cat([1 - lesion, lesion], 1)


@pytest.mark.parametrize(
    ("width", "millions"), [(256, 652.0), (128, 188.0), (64, 59.5)], ids=["full", "small", "tiny"]
)
def test_parameter_counts_are_those_of_the_document(width: int, millions: float) -> None:
    with torch.device("meta"):
        network = SpadeUNet(SpadeUNetSettings(width=width))
    count = sum(p.numel() for p in network.parameters()) / 1e6
    assert abs(count - millions) < 0.1


def test_at_384_px_the_levels_have_the_sizes_and_widths_of_the_document() -> None:
    with torch.device("meta"):
        network = SpadeUNet(SpadeUNetSettings())
        shapes: list[tuple[int, ...]] = []
        for stage in (*network.down, *network.middle, *network.up):
            stage.register_forward_hook(lambda m, i, out: shapes.append(tuple(out.shape[1:])))
        out = network(
            torch.empty(1, 3, 384, 384), torch.zeros(1), torch.empty(1, 2, 384, 384)
        )  # fmt: skip
    assert tuple(out.shape) == (1, 3, 384, 384)
    n_down = len(network.down)
    levels = [(256, 384), (256, 192), (512, 96), (512, 48), (1024, 24), (1024, 12)]
    assert shapes[1:n_down:3] == [(w, s, s) for w, s in levels]
    assert n_down + 1 == 13 + 5  # stored maps, with that of the first convolution
    assert shapes[n_down : n_down + 3] == [(1024, 12, 12)] * 3
    # a level's last stage has doubled already, but on the first level
    ends = shapes[n_down + 3 :][2::3]
    assert ends == [(1024, 24, 24), (1024, 48, 48), (512, 96, 96), (512, 192, 192),
                    (256, 384, 384), (256, 384, 384)]  # fmt: skip


def test_attention_is_where_the_image_is_8_16_or_32_times_smaller() -> None:
    with torch.device("meta"):
        network = SpadeUNet(SpadeUNetSettings())
    attended = [stage.attention is not None for stage in network.down]
    assert attended == [False] * 9 + [True, True, False, True, True, False, True, True]
    assert [stage.attention is not None for stage in network.up] == [True] * 9 + [False] * 9
    assert [stage.grow is not None for stage in network.up] == [False, False, True] * 5 + [
        False
    ] * 3


def test_a_fresh_network_predicts_zero() -> None:
    x, t, labels = inputs()
    assert not small(fresh=True)(x, t, labels).any()


def test_the_mask_changes_the_output_but_no_map_of_the_encoder() -> None:
    network = small()
    x, t, labels = inputs()
    found: list[tuple[list[Tensor], Tensor]] = []
    for given in (labels, labels.flip(1)):
        maps: list[Tensor] = []
        handles = [
            stage.register_forward_hook(lambda m, i, out, maps=maps: maps.append(out))
            for stage in network.down
        ]
        with torch.no_grad():
            out = network(x, t, given)
        for handle in handles:
            handle.remove()
        found.append((maps, out))
    assert all(torch.equal(a, b) for a, b in zip(found[0][0], found[1][0], strict=True))
    assert not torch.equal(found[0][1], found[1][1])


def test_spade_is_group_norm_with_scale_and_shift_of_the_mask() -> None:
    torch.manual_seed(0)
    spade = Spade(32)
    x = torch.randn(2, 32, 8, 8, generator=torch.Generator().manual_seed(1)) * 3 + 1
    labels = inputs()[2]
    small_labels = labels[..., ::2, ::2]  # nearest neighbour at half size
    groups = x.view(2, 32, -1)
    mean, variance = groups.mean(-1), groups.var(-1, unbiased=False)
    normal = ((groups - mean[..., None]) / (variance[..., None] + 1e-5).sqrt()).view_as(x)
    hidden = F.relu(F.conv2d(small_labels, spade.shared.weight, spade.shared.bias, padding=1))
    gamma = F.conv2d(hidden, spade.gamma.weight, spade.gamma.bias, padding=1)
    beta = F.conv2d(hidden, spade.beta.weight, spade.beta.bias, padding=1)
    torch.testing.assert_close(spade(x, labels), normal * (1 + gamma) + beta)


def test_attention_equals_softmax_written_out() -> None:
    torch.manual_seed(0)
    attention = Attention(32, 8)
    disturb(attention, scale=0.3)
    x = torch.randn(2, 32, 3, 2, generator=torch.Generator().manual_seed(1))
    flat = F.group_norm(x, 32, attention.norm.weight, attention.norm.bias).flatten(2)
    joint = F.conv1d(flat, attention.qkv.weight, attention.qkv.bias)
    mixed = []
    for head in range(4):
        q, k, v = torch.split(joint[:, head * 24 : (head + 1) * 24], 8, dim=1)
        weights = ((q * 8**-0.25).transpose(1, 2) @ (k * 8**-0.25)).softmax(-1)  # (B, N, N)
        mixed.append(v @ weights.transpose(1, 2))
    out = F.conv1d(torch.cat(mixed, 1), attention.out.weight, attention.out.bias)
    torch.testing.assert_close(attention(x), x + out.view_as(x))


@pytest.mark.parametrize(("resample", "side"), [("down", 4), ("up", 16), (None, 8)])
def test_blocks_resample_both_paths(resample: str | None, side: int) -> None:
    block = ResidualBlock(32, 32, 64, spade=False, resample=resample)
    x = torch.randn(1, 32, 8, 8, generator=torch.Generator().manual_seed(0))
    out = block(x, torch.zeros(1, 64), torch.zeros(1, 2, 8, 8))
    expected = {
        "down": F.avg_pool2d(x, 2),
        "up": F.interpolate(x, scale_factor=2),
        None: x,
    }[resample]
    assert out.shape[-1] == side
    assert torch.equal(out, expected)  # the zero convolution leaves the shortcut


def test_frequencies_are_cosines_then_sines() -> None:
    found = frequencies(torch.tensor([0, 7]), 4)
    assert found[0].tolist() == [1, 1, 0, 0]
    rates = torch.tensor([1.0, 0.01])
    torch.testing.assert_close(found[1], torch.cat([(7 * rates).cos(), (7 * rates).sin()]))


def test_gradient_checkpointing_changes_no_bit() -> None:
    network = small()
    x, t, labels = inputs()
    found = []
    for checkpointing in (False, True):
        network.gradient_checkpointing = checkpointing
        network.zero_grad(set_to_none=True)
        torch.autograd.backward(network(x, t, labels).square().mean())
        found.append([p.grad for p in network.parameters()])
    assert all(a is not None and b is not None and torch.equal(a, b)
               for a, b in zip(*found, strict=True))  # fmt: skip


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"width": 48}, "width 48 is not a multiple of 32"),
        ({"multipliers": [1, 0]}, r"multipliers must be positive, got \(1, 0\)"),
        (
            {"width": 32, "multipliers": [1, 1], "attention_factors": [1]},
            "level 0 has 32 channels, no multiple of head_channels 64",
        ),
        ({"head_channels": 48}, "level 3 has 512 channels, no multiple of head_channels 48"),
    ],
)
def test_impossible_widths_are_refused(content: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(SpadeUNetSettings, content)
