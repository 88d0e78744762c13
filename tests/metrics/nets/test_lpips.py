"""LPIPS: reference vectors with the bundled weights, structure without any."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from metrics.pictures import picture_a, picture_b
from siamese_diffusion.core.errors import WeightsError
from siamese_diffusion.core.weights import read_state_dict
from siamese_diffusion.metrics.nets.lpips import (
    CHANNELS,
    Lpips,
    Trunk,
    load_lpips,
    unit_channels,
    weighted_distance,
)

FILES: dict[Trunk, str] = {"alex": "alexnet_features", "squeeze": "squeezenet1_1_features"}


def bundled(shared: Path, trunk: Trunk) -> Lpips:
    folder = shared / "weights/lpips"
    features = read_state_dict(folder / f"{FILES[trunk]}_fp32.safetensors")
    return load_lpips(trunk, features, read_state_dict(folder / f"lin_{trunk}_v0.1.pth"))


def signed(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 127.5 - 1


@pytest.mark.parametrize(
    ("trunk", "side", "value"),
    [
        ("alex", 64, 0.680401),
        ("alex", 384, 1.209697),
        ("squeeze", 64, 0.626823),
        ("squeeze", 384, 0.711802),
    ],
)
def test_formula_pictures_have_the_reference_distance(
    shared: Path, trunk: Trunk, side: int, value: float
) -> None:
    network = bundled(shared, trunk)
    found = network(signed(picture_a(side)), signed(picture_b(side)))
    assert float(found) == pytest.approx(value, abs=2e-6)


@pytest.mark.parametrize(("trunk", "value"), [("alex", 0.610386), ("squeeze", 0.574108)])
def test_wrong_range_gives_the_lower_value_of_the_reference(
    shared: Path, trunk: Trunk, value: float
) -> None:
    network = bundled(shared, trunk)
    a, b = ((signed(p) + 1) / 2 for p in (picture_a(64), picture_b(64)))
    assert float(network(a, b)) == pytest.approx(value, abs=2e-6)


@pytest.mark.parametrize(("trunk", "value"), [("alex", 0.146919), ("squeeze", 0.100491)])
def test_random_images_have_the_published_distance(
    shared: Path, trunk: Trunk, value: float
) -> None:
    torch.manual_seed(42)
    a, b = (torch.rand(10, 3, 100, 100) * 2 - 1 for _ in range(2))
    assert float(bundled(shared, trunk)(a, b).mean()) == pytest.approx(value, abs=2e-6)


@pytest.mark.parametrize(
    ("trunk", "values"), [("alex", (0.1312, 0.1420)), ("squeeze", (0.1024, 0.0938))]
)
def test_two_random_images_have_the_published_distances(
    shared: Path, trunk: Trunk, values: tuple[float, float]
) -> None:
    generator = torch.Generator().manual_seed(42)
    a, b = (torch.rand(2, 3, 100, 100, generator=generator) * 2 - 1 for _ in range(2))
    assert bundled(shared, trunk)(a, b).tolist() == pytest.approx(values, abs=6e-5)


def test_equal_images_are_at_distance_zero_and_the_order_does_not_matter(shared: Path) -> None:
    network = bundled(shared, "alex")
    a, b = signed(picture_a(64)), signed(picture_b(64))
    assert float(network(a, a)) == 0.0
    assert float(network(a, b)) == float(network(b, a))


def test_scaling_activations_changes_nothing() -> None:
    x = torch.rand(2, 5, 4, 4) + 0.1
    torch.testing.assert_close(unit_channels(7 * x), unit_channels(x))


def test_orthogonal_activations_are_at_twice_the_mean_weight() -> None:
    a = torch.zeros(1, 2, 3, 3)
    b = torch.zeros(1, 2, 3, 3)
    a[:, 0] = 1
    b[:, 1] = 1
    one = torch.ones(1, 2, 1, 1)
    assert float(weighted_distance([a], [b], [one])) == 2.0
    weights = torch.tensor([0.5, 0.25]).view(1, 2, 1, 1)
    assert float(weighted_distance([a], [b], [weights])) == 0.75


def test_distance_is_the_mean_over_pixels() -> None:
    a = torch.zeros(1, 2, 4, 4)
    a[:, 0] = 1
    b = a.clone()
    b[:, :, :2] = b[:, :, :2].flip(1)  # differs on half of the pixels
    assert float(weighted_distance([a], [b], [torch.ones(1, 2, 1, 1)])) == 1.0


@pytest.mark.parametrize("trunk", ["alex", "squeeze", "vgg"])
def test_taps_have_the_channels_of_the_table(trunk: Trunk) -> None:
    activations = Lpips(trunk).activations(torch.rand(1, 3, 64, 64))
    assert tuple(a.shape[1] for a in activations) == CHANNELS[trunk]


def test_vgg_has_the_published_number_of_parameters() -> None:
    # VGG-16 has 14,714,688 values in its convolutions.
    assert sum(p.numel() for p in Lpips("vgg").features.parameters()) == 14_714_688


def test_images_too_small_are_refused_with_their_size() -> None:
    with pytest.raises(ValueError, match=r"\(16, 40\) pixels are too small for LPIPS; 32"):
        Lpips("alex").activations(torch.rand(1, 3, 16, 40))


def test_weights_of_another_trunk_are_refused_and_a_classifier_is_left_aside() -> None:
    squeeze, alex = Lpips("squeeze"), Lpips("alex")
    linear = {f"lin{k}.model.1.weight": w.data for k, w in enumerate(alex.lin)}
    features = {f"features.{k}": v for k, v in squeeze.features.state_dict().items()}
    with pytest.raises(WeightsError, match=r"trunk 'alex' \(missing: \['features.10.bias'"):
        load_lpips("alex", features, linear)
    right = {f"features.{k}": v for k, v in alex.features.state_dict().items()}
    loaded = load_lpips("alex", {**right, "classifier.6.bias": torch.zeros(1000)}, linear)
    assert torch.equal(loaded.state_dict()["features.0.weight"], right["features.0.weight"])
