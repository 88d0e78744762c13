"""The Dense Hint Input against its description."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from siamese_diffusion.models.dense_hint import DenseHintInput, PatchMerging, ResidualBlock


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_at_full_width_it_has_3_26_million_parameters_with_its_zero_convolution() -> None:
    with torch.device("meta"):
        dense = DenseHintInput(320)
    widths = [16, 32, 64, 128, 256]
    plain = [(3, 16), (16, 32), (64, 64), (128, 128), (256, 256)]
    expected = sum(9 * a * b + b for a, b in plain)
    expected += sum(2 * (9 * c * c + c) for c in widths)
    expected += sum(8 * c + (4 * c * 2 * c + 2 * c) for c in (32, 64, 128))  # norms and linears
    zero = 9 * 256 * 320 + 320
    assert count(dense.out) == zero == 737_600
    assert count(dense) == expected + zero == 3_263_872


def test_output_is_an_eighth_of_the_input_at_the_width_asked_for() -> None:
    dense = DenseHintInput(24, (4, 4, 8, 16, 32))
    assert dense(torch.rand(2, 3, 32, 48)).shape == (2, 24, 4, 6)
    assert dense.features(torch.rand(2, 3, 32, 48)).shape == (2, 32, 4, 6)


def test_at_384_pixels_it_meets_stable_diffusions_first_feature_map() -> None:
    with torch.device("meta"):
        assert DenseHintInput(320)(torch.empty(1, 3, 384, 384)).shape == (1, 320, 48, 48)


def test_a_fresh_one_adds_exactly_nothing() -> None:
    dense = DenseHintInput(16, (4, 4, 4, 8, 16))
    assert not dense(torch.rand(1, 3, 16, 16)).any()
    assert dense.features(torch.rand(1, 3, 16, 16)).any()


def test_at_first_gradient_reaches_the_zero_convolution_alone() -> None:
    dense = DenseHintInput(16, (4, 4, 4, 8, 16))
    torch.autograd.backward(dense(torch.rand(1, 3, 16, 16)).sum())
    moved = {
        name
        for name, parameter in dense.named_parameters()
        if parameter.grad is not None and bool(parameter.grad.any())
    }
    assert moved == {"out.weight", "out.bias"}


def test_once_the_zero_convolution_moved_gradient_reaches_every_weight() -> None:
    dense = DenseHintInput(16, (4, 4, 4, 8, 16))
    nn.init.normal_(dense.out.weight)
    torch.autograd.backward(dense(torch.rand(1, 3, 16, 16)).square().sum())
    for name, parameter in dense.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.any()), name


@pytest.mark.parametrize(
    ("height", "width", "padded"),
    [(30, 64, "32x64"), (64, 65, "64x72"), (1, 7, "8x8"), (350, 380, "352x384")],
)
def test_sizes_that_are_no_multiples_of_8_are_refused_with_the_padded_size(
    height: int, width: int, padded: str
) -> None:
    dense = DenseHintInput(16, (4, 4, 4, 4, 4))
    expected = f"hint is {height}x{width}; both must be multiples of 8, e.g. {padded}"
    with pytest.raises(ValueError, match=expected):
        dense(torch.rand(1, 3, height, width))


def test_patch_merging_takes_neighbours_column_by_column() -> None:
    merge = PatchMerging(1, 4)
    merge.norm = nn.Identity()  # type: ignore[assignment]
    with torch.no_grad():
        merge.reduction.weight.copy_(torch.eye(4))
        merge.reduction.bias.zero_()
    picture = torch.tensor([[11.0, 12, 13, 14], [21, 22, 23, 24]])[None, None]  # row, column
    merged = merge(picture)
    assert merged.shape == (1, 4, 1, 2)
    assert merged[0, :, 0, 0].tolist() == [11, 21, 12, 22]
    assert merged[0, :, 0, 1].tolist() == [13, 23, 14, 24]


def test_patch_merging_keeps_the_channels_of_a_neighbour_together() -> None:
    merge = PatchMerging(2, 8)
    merge.norm = nn.Identity()  # type: ignore[assignment]
    with torch.no_grad():
        merge.reduction.weight.copy_(torch.eye(8))
        merge.reduction.bias.zero_()
    first = torch.tensor([[1.0, 2], [3, 4]])
    merged = merge(torch.stack([first, 10 * first])[None])
    assert merged.flatten().tolist() == [1, 10, 3, 30, 2, 20, 4, 40]


def test_patch_merging_normalises_before_it_reduces() -> None:
    merge = PatchMerging(1, 2)
    with torch.no_grad():
        merge.norm.weight.fill_(2.0)
        merge.norm.bias.fill_(0.5)
    picture = torch.tensor([[1.0, 3.0], [2.0, 6.0]])[None, None]
    patch = torch.tensor([1.0, 2.0, 3.0, 6.0])
    normed = (patch - 3.0) / (3.5 + 1e-5) ** 0.5 * 2 + 0.5  # variance 14 / 4
    expected = merge.reduction.weight @ normed + merge.reduction.bias
    torch.testing.assert_close(merge(picture).flatten(), expected)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_patch_merging_hands_on_the_layout_it_was_given(layout: torch.memory_format) -> None:
    x = torch.rand(2, 4, 8, 8).contiguous(memory_format=layout)
    merged = PatchMerging(4, 8)(x)
    assert merged.is_contiguous(memory_format=layout)
    assert not merged.is_contiguous() or layout == torch.contiguous_format


def test_a_residual_block_with_zero_weights_is_silu() -> None:
    block = ResidualBlock(3)
    for parameter in block.parameters():
        nn.init.zeros_(parameter)
    x = torch.randn(1, 3, 4, 4)
    assert torch.equal(block(x), F.silu(x))


def test_a_residual_block_by_hand() -> None:
    block = ResidualBlock(1)
    with torch.no_grad():
        for conv in (block.conv1, block.conv2):
            conv.weight.zero_()
            conv.weight[0, 0, 1, 1] = 1.0
            conv.bias.zero_()  # type: ignore[union-attr]
    x = torch.tensor([[[[2.0, -1.0]]]])
    torch.testing.assert_close(block(x), F.silu(x + F.silu(x)))


def test_no_activation_stands_between_plain_convolutions_and_residual_blocks() -> None:
    dense = DenseHintInput(8, (4, 4, 4, 4, 4)).double()
    weights = {name: p.detach() for name, p in dense.named_parameters()}

    def conv(x: Tensor, name: str) -> Tensor:
        return F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=1)

    def block(x: Tensor, name: str) -> Tensor:
        return F.silu(x + conv(F.silu(conv(x, f"{name}.conv1")), f"{name}.conv2"))

    def merge(x: Tensor, name: str) -> Tensor:
        n, c, h, w = x.shape
        # (row in patch, column in patch) -> column-major
        patches = x.view(n, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 5, 3, 1)
        flat = patches.reshape(n, h // 2, w // 2, 4 * c)
        norm = F.layer_norm(
            flat, (4 * c,), weights[f"{name}.norm.weight"], weights[f"{name}.norm.bias"]
        )
        out = norm @ weights[f"{name}.reduction.weight"].T + weights[f"{name}.reduction.bias"]
        return out.permute(0, 3, 1, 2)

    picture = torch.rand(2, 3, 16, 24, dtype=torch.float64)
    x = block(conv(block(conv(picture, "conv1"), "block1"), "conv2"), "block2")
    for stage in (1, 2, 3):
        x = merge(x, f"merge{stage}")
        x = block(conv(x, f"conv{stage + 2}"), f"block{stage + 2}")
    torch.testing.assert_close(dense.features(picture), x)
