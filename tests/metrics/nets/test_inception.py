"""FID's Inception: reference vectors, folding, the blocks beyond the bundled layers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from metrics.pictures import picture_a, picture_b
from siamese_diffusion.core.errors import WeightsError
from siamese_diffusion.core.weights import read_state_dict
from siamese_diffusion.metrics.nets.inception import (
    Inception,
    Level,
    fold_batch_norm,
    load_inception,
    widest_level,
)

# Level, picture, first four values, sum, L2 norm: from the reference document on FID.
VECTORS = [
    (64, "a", (4.2682, 0.9134, 3.8344, 0.5807), 150.267, 21.5146),
    (64, "b", (3.4484, 2.8993, 2.4334, 2.6581), 194.444, 27.0230),
    (192, "a", (4.5194, 0.0060, 5.5461, 4.2597), 551.354, 44.8775),
    (192, "b", (4.3513, 0.1523, 4.0094, 1.2198), 490.140, 40.6471),
    (768, "a", (0.0000, 0.0024, 0.0000, 0.0050), 25.439, 2.7525),
    (768, "b", (0.0017, 0.0000, 0.0000, 0.0744), 24.653, 2.0982),
]


def random_checkpoint(seed: int = 0) -> dict[str, Tensor]:
    """Tensors under the names of the full checkpoint, as convolutions and batch norms."""
    torch.manual_seed(seed)
    state: dict[str, Tensor] = {"fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.zeros(1008)}
    for key, weight in Inception(2048).state_dict().items():
        name, _, kind = key.rpartition(".")
        if kind == "bias":
            n = len(weight)
            state[f"{name}.bn.weight"] = torch.rand(n) + 0.5
            state[f"{name}.bn.bias"] = torch.randn(n) * 0.1
            state[f"{name}.bn.running_mean"] = torch.randn(n) * 0.1
            state[f"{name}.bn.running_var"] = torch.rand(n) + 0.5
            state[f"{name}.bn.num_batches_tracked"] = torch.tensor(1)
        else:
            fan_in = weight[0].numel()
            state[f"{name}.conv.weight"] = torch.randn(weight.shape) * (2 / fan_in) ** 0.5
    return state


@pytest.mark.parametrize(("level", "name", "first", "total", "norm"), VECTORS)
def test_bundled_layers_give_the_reference_features(
    shared: Path, level: Level, name: str, first: tuple[float, ...], total: float, norm: float
) -> None:
    path = shared / "weights/inception-fid/inception_v3_2015_to_mixed6e_fp16.safetensors"
    network = load_inception(read_state_dict(path), level)
    pixels = picture_a(299) if name == "a" else picture_b(299)
    x = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
    features = network((x - 128) / 128)[0]
    # The vectors are of float32 weights; half-precision storage moves them by about 1e-3.
    assert features[:4].tolist() == pytest.approx(first, abs=3e-3, rel=3e-3)
    assert float(features.sum()) == pytest.approx(total, rel=3e-3)
    assert float(features.norm()) == pytest.approx(norm, rel=3e-3)


def test_full_network_has_the_published_number_of_parameters() -> None:
    # Keras states 21,768,352 trainable values without its top: convolutions and one shift each.
    assert sum(p.numel() for p in Inception(2048).parameters()) == 21_768_352


def test_folded_batch_norm_equals_the_two_layers() -> None:
    state = {k: v for k, v in random_checkpoint().items() if k.startswith("Mixed_7b.branch3x3_2a.")}
    name = "Mixed_7b.branch3x3_2a"
    x = torch.randn(2, 384, 8, 8)
    plain = F.conv2d(x, state[f"{name}.conv.weight"], padding=(0, 1))
    normed = F.batch_norm(
        plain,
        state[f"{name}.bn.running_mean"],
        state[f"{name}.bn.running_var"],
        state[f"{name}.bn.weight"],
        state[f"{name}.bn.bias"],
        eps=0.001,
    )
    folded = fold_batch_norm(state)
    once = F.conv2d(x, folded[f"{name}.weight"], folded[f"{name}.bias"], padding=(0, 1))
    torch.testing.assert_close(once, normed, atol=1e-4, rtol=1e-4)


def test_last_blocks_equal_a_literal_statement_of_the_table() -> None:
    network = load_inception(random_checkpoint(), 2048)
    state = network.state_dict()
    x = torch.rand(1, 768, 17, 17)

    def conv(x: Tensor, name: str, pad: tuple[int, int] = (0, 0), stride: int = 1) -> Tensor:
        w, b = state[f"{name}.weight"], state[f"{name}.bias"]
        return F.conv2d(x, w, b, stride=stride, padding=pad).relu()

    first = conv(conv(x, "Mixed_7a.branch3x3_1"), "Mixed_7a.branch3x3_2", stride=2)
    second = conv(x, "Mixed_7a.branch7x7x3_1")
    second = conv(second, "Mixed_7a.branch7x7x3_2", (0, 3))
    second = conv(second, "Mixed_7a.branch7x7x3_3", (3, 0))
    second = conv(second, "Mixed_7a.branch7x7x3_4", stride=2)
    y = torch.cat([first, second, F.max_pool2d(x, 3, 2)], 1)
    assert y.shape == (1, 1280, 8, 8)
    for name in ("Mixed_7b", "Mixed_7c"):
        short = conv(y, f"{name}.branch3x3_1")
        long = conv(conv(y, f"{name}.branch3x3dbl_1"), f"{name}.branch3x3dbl_2", (1, 1))
        if name == "Mixed_7b":
            pooled = F.avg_pool2d(y, 3, 1, 1, count_include_pad=False)
        else:
            pooled = F.max_pool2d(y, 3, 1, 1)
        parts = [conv(y, f"{name}.branch1x1")]
        parts += [conv(short, f"{name}.branch3x3_2a", (0, 1))]
        parts += [conv(short, f"{name}.branch3x3_2b", (1, 0))]
        parts += [conv(long, f"{name}.branch3x3dbl_3a", (0, 1))]
        parts += [conv(long, f"{name}.branch3x3dbl_3b", (1, 0))]
        y = torch.cat([*parts, conv(pooled, f"{name}.branch_pool")], 1)
    found = x
    for name in ("Mixed_7a", "Mixed_7b", "Mixed_7c"):
        found = network.get_submodule(name)(found)
    torch.testing.assert_close(found, y)


@pytest.mark.parametrize("level", [64, 192, 768, 2048])
def test_every_level_ends_where_its_features_are(level: Level) -> None:
    network = load_inception(random_checkpoint(), level)
    features = network(torch.rand(1, 3, 299, 299) * 2 - 1)
    assert features.shape == (1, level)
    assert bool(torch.isfinite(features).all())


def test_checkpoint_without_its_last_layers_is_refused_with_their_names() -> None:
    state = {k: v for k, v in random_checkpoint().items() if not k.startswith("Mixed_7")}
    assert widest_level(state) == 768
    with pytest.raises(WeightsError, match=r"at 2048 features \(missing: Mixed_7a"):
        load_inception(state, 2048)


def test_foreign_layers_are_refused_with_their_names() -> None:
    state = {**random_checkpoint(), "AuxLogits.conv.weight": torch.zeros(1)}
    state["AuxLogits.fc.weight"] = torch.zeros(1)
    with pytest.raises(WeightsError, match=r"'AuxLogits.conv.weight' has no 'AuxLogits.bn.weight'"):
        load_inception(state, 64)
    del state["AuxLogits.conv.weight"]
    with pytest.raises(WeightsError, match=r"unknown: AuxLogits.fc.weight"):
        load_inception(state, 64)


def test_layer_of_another_shape_is_refused_with_both_shapes() -> None:
    state = fold_batch_norm(random_checkpoint())
    state["Conv2d_1a_3x3.bias"] = torch.zeros(31)
    with pytest.raises(WeightsError, match=r"Conv2d_1a_3x3.bias is \(31,\), not \(32,\)"):
        load_inception(state, 64)


def test_widest_level_follows_the_layers_there() -> None:
    state = fold_batch_norm(random_checkpoint())
    assert widest_level(state) == 2048
    early = {k: v for k, v in state.items() if k.startswith("Conv2d")}
    assert widest_level(early) == 192
    assert widest_level({k: v for k, v in early.items() if "4a" not in k}) == 64
    assert np.isfinite([float(v.abs().max()) for v in early.values()]).all()
