"""The table of hint inputs and their widths."""

from __future__ import annotations

import pytest
import torch
from diffusers.models.controlnets.controlnet import ControlNetConditioningEmbedding
from pydantic import ValidationError
from torch import Tensor, nn

from siamese_diffusion.models.dense_hint import DenseHintInput
from siamese_diffusion.models.hints import build_hint, hint_widths
from siamese_diffusion.models.settings import ModelSettings


@pytest.mark.parametrize(
    ("first_width", "widths"),
    [
        (320, (16, 32, 64, 128, 256)),
        (640, (16, 32, 64, 128, 256)),
        (160, (8, 16, 32, 64, 128)),
        (64, (4, 8, 16, 32, 64)),
        (16, (4, 4, 4, 8, 16)),
    ],
)
def test_dense_widths_scale_with_the_base(first_width: int, widths: tuple[int, ...]) -> None:
    assert hint_widths(ModelSettings(), first_width) == widths


def test_sparse_widths_scale_with_the_base() -> None:
    assert hint_widths(ModelSettings(hint="sparse"), 320) == (16, 32, 96, 256)
    assert hint_widths(ModelSettings(hint="sparse"), 160) == (8, 16, 48, 128)


def test_widths_asked_for_are_kept() -> None:
    asked = (5, 6, 7, 8, 9)
    assert hint_widths(ModelSettings(hint_widths=asked), 320) == asked


def test_each_name_builds_its_module() -> None:
    assert isinstance(build_hint(ModelSettings(), 16), DenseHintInput)
    sparse = build_hint(ModelSettings(hint="sparse"), 16)
    assert isinstance(sparse, ControlNetConditioningEmbedding)


def test_the_sparse_hint_at_full_width_is_controlnets() -> None:
    with torch.device("meta"):
        sparse = build_hint(ModelSettings(hint="sparse"), 320)
    assert sum(parameter.numel() for parameter in sparse.parameters()) == 1_086_480


@pytest.mark.parametrize("hint", ["dense", "sparse"])
def test_a_fresh_hint_adds_nothing_at_an_eighth_of_the_size(hint: str) -> None:
    module = build_hint(ModelSettings.model_validate({"hint": hint}), 16)
    out = module(torch.rand(2, 3, 32, 24))
    assert out.shape == (2, 16, 4, 3)
    assert not out.any()


def before_the_zero_convolution(settings: ModelSettings, masks: Tensor) -> Tensor:
    """Features that the last convolution of a fresh hint input gets."""
    torch.manual_seed(0)
    hint = build_hint(settings, 64)
    seen: list[Tensor] = []
    last = hint.out if isinstance(hint, DenseHintInput) else hint.conv_out
    assert isinstance(last, nn.Module)
    last.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].detach()))
    with torch.no_grad():
        hint(masks)
    return seen[0]


def squares(n: int = 4) -> Tensor:
    """Masks with one square each, somewhere else in each."""
    masks = torch.zeros(n, 3, 64, 64)
    for index in range(n):
        masks[index, :, 8 * index : 8 * index + 24, 4 * index : 4 * index + 24] = 1
    return masks


@pytest.mark.parametrize("hint", ["dense", "sparse"])
def test_fresh_features_tell_masks_apart_where_torchs_first_weights_do_not(hint: str) -> None:
    def told_apart(init: str) -> float:
        settings = ModelSettings.model_validate({"hint": hint, "hint_init": init})
        features = before_the_zero_convolution(settings, squares())
        return float(features.std(0).mean() / features.square().mean().sqrt())

    assert told_apart("torch") < 0.2
    assert told_apart("kaiming") > 0.4


@pytest.mark.parametrize("hint", ["dense", "sparse"])
def test_an_empty_mask_gives_no_features(hint: str) -> None:
    settings = ModelSettings.model_validate({"hint": hint})
    assert not before_the_zero_convolution(settings, torch.zeros(1, 3, 64, 64)).any()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"hint_widths": (4, 4, 4)}, "hint_widths needs 5 widths for hint 'dense', got 3"),
        (
            {"hint": "sparse", "hint_widths": (4, 4, 4, 4, 4)},
            "hint_widths needs 4 widths for hint 'sparse', got 5",
        ),
        ({"hint_widths": (4, 0, 4, 4, 4)}, "hint_widths must be positive"),
        ({"hint": "thick"}, "'dense' or 'sparse'"),
    ],
)
def test_widths_that_fit_no_hint_are_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ModelSettings.model_validate(given)
