"""What every network must do, and what is special to each."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from siamese_diffusion.core.errors import ConfigError
from siamese_diffusion.segmentation import SEGMENTERS
from siamese_diffusion.segmentation.base import Segmenter
from siamese_diffusion.segmentation.ctnet import CTNet
from siamese_diffusion.segmentation.polyp_pvt import ConvNorm, PolypPVT
from siamese_diffusion.segmentation.sanet import SANet, correct_probability
from siamese_diffusion.segmentation.segformer import SegFormer
from siamese_diffusion.segmentation.settings import (
    CTNetSettings,
    PolypPVTSettings,
    SegFormerSettings,
    UNetSettings,
)
from siamese_diffusion.segmentation.unet import UNet

CONVOLUTIONAL = ("sanet", "unet")
STRIDES = {"sanet": 8, "polyp-pvt": 1, "ctnet": 1, "unet": 1, "segformer": 4}


def build(name: str) -> Segmenter:
    torch.manual_seed(0)
    return cast("Callable[[], Segmenter]", SEGMENTERS[name])()


@pytest.fixture(scope="module", params=list(SEGMENTERS))
def network(request: pytest.FixtureRequest) -> tuple[str, Segmenter]:
    return request.param, build(request.param)


def parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def squares(size: int = 64) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    masks = torch.zeros(2, 1, size, size)
    masks[:, :, size // 4 : size // 2, size // 8 : size // 2] = 1
    return torch.randn(2, 3, size, size), masks


@pytest.mark.parametrize("size", [352, 384])
def test_logits_come_at_the_networks_stride(network: tuple[str, Segmenter], size: int) -> None:
    name, model = network
    model.eval()
    with torch.no_grad():
        outputs = model(torch.zeros(1, 3, size, size))
    if name in STRIDES:
        side = size // STRIDES[name]
        assert outputs.logits.shape[2:] == (side, side)
    assert model.foreground(outputs, (101, 77)).shape == (1, 1, 101, 77)


def test_an_odd_size_works_or_is_refused_with_the_next_that_does(
    network: tuple[str, Segmenter],
) -> None:
    name, model = network
    model.eval()
    if name == "segformer":
        with torch.no_grad():
            assert model(torch.zeros(1, 3, 350, 350)).logits.shape[2:] == (88, 88)
        return
    with pytest.raises(ConfigError, match=rf"97 x 97 pixels.*multiples of {model.multiple}"):
        model(torch.zeros(1, 3, 97, 97))


def test_every_parameter_gets_a_finite_gradient(network: tuple[str, Segmenter]) -> None:
    _, model = network
    model.train().zero_grad(set_to_none=True)
    images, masks = squares()
    terms = model.loss(model(images), masks)
    assert all(name.startswith("loss/") for name in terms)
    torch.autograd.backward(list(terms.values()))
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all() and parameter.grad.abs().max() > 0, name


def test_groups_hold_every_parameter_once(network: tuple[str, Segmenter]) -> None:
    _, model = network
    grouped = [id(p) for members, _ in model.scaled_groups() for p in members]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == {id(p) for p in model.parameters()}


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", list(SEGMENTERS))
def test_eight_pairs_are_learnt_by_heart(name: str) -> None:
    from siamese_diffusion.data.phantom import phantom_pair

    model = build(name)
    pairs = [phantom_pair(0, index, size=64) for index in range(8)]
    images = torch.stack([torch.from_numpy(p.image).permute(2, 0, 1) for p in pairs])
    masks = torch.stack([torch.from_numpy(p.mask > 127)[None].float() for p in pairs])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3 if name in CONVOLUTIONAL else 3e-4)
    best = 0.0
    for step in range(500):
        model.train()
        terms = model.loss(model(model.prepare(images)), masks)
        optimizer.zero_grad()
        torch.autograd.backward(torch.stack(list(terms.values())).sum())
        optimizer.step()
        if step % 20 == 19:
            model.eval()
            with torch.no_grad():
                decided = model.foreground(model(model.prepare(images)), (64, 64)) > 0
            overlap = (decided & (masks > 0)).sum((1, 2, 3))
            total = decided.sum((1, 2, 3)) + masks.sum((1, 2, 3))
            best = max(best, float((2 * overlap / total).mean()))
            if best > 0.95:
                return
    raise AssertionError(f"{name} reached a Dice of {best:.3f} only")


def test_parameter_counts_are_the_references() -> None:
    sanet, pvt, ctnet = SANet(), PolypPVT(), CTNet()
    assert parameters(sanet) == 23_899_497
    assert parameters(sanet.encoder) == 23_669_352
    assert parameters(pvt) == 25_107_604
    assert parameters(pvt) - parameters(pvt.encoder) == 257_748
    assert parameters(ctnet) == 44_290_657
    assert parameters(ctnet) - parameters(ctnet.encoder) == 218_529
    assert parameters(UNet()) == 1_946_914
    assert parameters(UNet(UNetSettings(variant="full", classes=1))) == 31_037_633


@pytest.mark.parametrize(
    ("variant", "encoder", "total"),
    [
        ("b0", 3_319_392, 3_714_658),
        ("b1", 13_151_424, 13_677_762),
        ("b2", 24_196_288, 27_348_162),
        ("b3", 44_072_128, 47_224_002),
        ("b4", 60_842_688, 63_994_562),
        ("b5", 81_443_008, 84_594_882),
    ],
)
def test_segformer_counts_are_the_references(variant: str, encoder: int, total: int) -> None:
    with torch.device("meta"):
        model = SegFormer(SegFormerSettings.model_validate({"variant": variant}))
    assert (parameters(model.encoder), parameters(model)) == (encoder, total)


def test_sanet_trains_its_encoder_at_a_tenth_and_segformer_its_head_at_ten_times() -> None:
    assert [rate for _, rate in SANet().scaled_groups()] == [0.1, 1.0]
    assert [rate for _, rate in SegFormer().scaled_groups()] == [1.0, 10.0]


def test_probability_correction_divides_by_the_share_of_each_sign() -> None:
    z = torch.full((1, 1, 10, 10), -2.0)
    z[0, 0, 0] = 0.5
    corrected = correct_probability(z)
    assert float(corrected[0, 0, 0, 0]) == pytest.approx(5.0)
    assert float(corrected[0, 0, 1, 0]) == pytest.approx(-2 / 0.9)
    assert torch.equal(corrected > 0, z > 0)


def test_probability_correction_leaves_zeros_and_one_sided_maps_alone() -> None:
    z = torch.zeros(1, 1, 2, 2)
    assert torch.equal(correct_probability(z), z)
    z = torch.full((1, 1, 2, 2), -3.0)
    assert torch.equal(correct_probability(z), z)


def test_aggregation_without_its_last_convolution_gives_its_input_back() -> None:
    module = PolypPVT().aggregation
    torch.nn.init.zeros_(module.conv_extend.weight)
    x = torch.randn(1, 32, 12, 12)
    torch.testing.assert_close(module(x, torch.randn(1, 32, 12, 12)), x)


def test_polyp_pvt_predicts_by_the_sum_of_its_two_logits() -> None:
    model = build("polyp-pvt").eval()
    with torch.no_grad():
        outputs = model(squares()[0])
    torch.testing.assert_close(
        outputs.logits, outputs.auxiliary["fusion"] + outputs.auxiliary["aggregation"]
    )


def test_the_missing_relu_is_a_switch() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 4, 8, 8)
    plain, papers = ConvNorm(4, 4, 3), ConvNorm(4, 4, 3, relu=True)
    papers.load_state_dict(plain.state_dict())
    assert float(plain(x).detach().min()) < 0
    torch.testing.assert_close(papers(x), plain(x).relu())
    for settings in (PolypPVTSettings(relu=True), CTNetSettings(relu=True)):
        model = PolypPVT(settings) if isinstance(settings, PolypPVTSettings) else CTNet(settings)
        assert all(m._relu for m in model.modules() if isinstance(m, ConvNorm))


def test_ctnet_embeds_pixels_as_unit_vectors_in_training_alone() -> None:
    model = build("ctnet").train()
    images = torch.zeros(2, 3, 64, 64)
    embedding = model(images).auxiliary["embedding"]
    assert embedding.shape == (2, 32, 16, 16)
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(2, 16, 16))
    assert not model.eval()(images).auxiliary


def test_ctnet_without_anything_to_contrast_still_gives_gradients() -> None:
    model = build("ctnet").train()
    images = torch.randn(2, 3, 64, 64)
    masks = torch.zeros(2, 1, 64, 64)
    masks[..., :10, :10] = 1
    outputs = model(images)
    small = F.interpolate(masks, size=[8, 8])
    small_outputs = type(outputs)(F.interpolate(outputs.logits, size=[8, 8]), outputs.auxiliary)
    loss = model.loss(small_outputs, small)["loss/contrast"]
    assert float(loss.detach()) == 0
    torch.autograd.backward(loss)


def test_ctnet_shares_one_interaction_and_one_upsampler() -> None:
    model = CTNet()
    assert parameters(model.interaction) == 8 * (32 * 32 * 9 + 32) + 5 * 64
    names = [name for name, _ in model.named_parameters()]
    assert sum(name.startswith("interaction.") for name in names) == 8 * 2 + 5 * 2


@pytest.mark.parametrize("classes", [1, 2])
def test_segformer_trains_a_step_with_one_or_two_labels(classes: int) -> None:
    model = SegFormer(SegFormerSettings.model_validate({"classes": classes}))
    images, masks = squares()
    before = [p.detach().clone() for p in model.head.parameters()]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    torch.autograd.backward(list(model.loss(model(images), masks).values()))
    optimizer.step()
    assert any(not torch.equal(a, b) for a, b in zip(before, model.head.parameters(), strict=True))


def test_a_unet_with_one_class_decides_like_one_with_a_constant_background() -> None:
    model = UNet(UNetSettings(classes=1))
    images, masks = squares()
    terms = model.loss(model(images), masks)
    assert set(terms) == {"loss/cross_entropy", "loss/dice"}
    expected = F.binary_cross_entropy_with_logits(model(images).logits, masks)
    assert float(terms["loss/cross_entropy"].detach()) == pytest.approx(
        0.5 * float(expected.detach()), rel=1e-5
    )


def test_the_full_unet_needs_multiples_of_sixteen() -> None:
    with pytest.raises(ConfigError, match="multiples of 16"):
        UNet(UNetSettings(variant="full"))(torch.zeros(1, 3, 40, 40))


def test_ctnet_refuses_images_whose_deepest_map_cannot_be_halved() -> None:
    with pytest.raises(ConfigError, match=r"32 x 64 pixels.*multiples of 32, 64 or more") as e:
        CTNet()(torch.zeros(1, 3, 32, 64))
    assert e.value.hint == "use 64 x 64"
