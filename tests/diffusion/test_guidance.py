"""Guidance, and what the guided sampler may see and how often it computes."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from siamese_diffusion.diffusion.ddim import ddim_sample
from siamese_diffusion.diffusion.guidance import guide, guided_predictor
from siamese_diffusion.diffusion.sampler import PAPER, Sampler
from siamese_diffusion.generators.settings import SiameseFitSettings
from siamese_diffusion.generators.siamese import Siamese
from siamese_diffusion.models.settings import SmallBaseSettings
from siamese_diffusion.models.siamese import SiameseNetwork
from siamese_diffusion.models.small import build_small_base
from siamese_diffusion.sampling.pipeline import SiameseDiffusionPipeline

SMALL = SmallBaseSettings(
    autoencoder_widths=(16, 16, 16, 16),
    unet_widths=(16, 32),
    unet_layers=1,
    text_width=32,
    text_layers=1,
)


@pytest.fixture(scope="module")
def siamese() -> Siamese:
    found = Siamese.build(SiameseFitSettings(), build_small_base(SMALL, size=32, seed=0))
    noise = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in found.network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=noise), alpha=0.05)
    return found


def sample(siamese: Siamese, *, scale: float, c_empty: Tensor | None = None) -> Tensor:
    noise = torch.Generator().manual_seed(1)
    mask = (torch.rand(2, 1, 32, 32, generator=noise) > 0.5).float().expand(2, 3, 32, 32)
    c_text = torch.randn(2, 7, 32, generator=noise)
    start = torch.randn(2, 4, 4, 4, generator=noise)
    empty = torch.randn(2, 7, 32, generator=noise) if c_empty is None else c_empty
    return siamese.sample_latents(mask, c_text, empty, start, steps=3, guidance_scale=scale)


def test_guidance_extrapolates_from_the_empty_prompt() -> None:
    empty, text = torch.tensor([1.0, 2.0]), torch.tensor([2.0, 0.0])
    assert guide(empty, text, 9.0).tolist() == [10.0, -16.0]


def test_scale_one_is_the_prompt_and_scale_zero_the_empty_prompt() -> None:
    empty, text = torch.randn(3, 4), torch.randn(3, 4)
    torch.testing.assert_close(guide(empty, text, 1.0), text)
    assert torch.equal(guide(empty, text, 0.0), empty)


def test_equal_predictions_are_not_changed_by_any_scale() -> None:
    eps = torch.randn(2, 4)
    assert torch.equal(guide(eps, eps, 9.0), eps)


def calls_of(
    scale: float, sampler: Sampler = PAPER, *, empty_length: int = 7
) -> list[tuple[int, int, int, int]]:
    """Rows of noise, times, context and condition at each call, for timesteps 900, 500 and 100."""
    rows: list[tuple[int, int, int, int]] = []

    def predict(zt: Tensor, t: Tensor, context: Tensor, condition: tuple[Tensor, ...]) -> Tensor:
        rows.append((len(zt), len(t), len(context), len(condition[0])))
        return zt

    guided = guided_predictor(
        predict,
        (torch.zeros(2, 3),),
        c_text=torch.zeros(2, 7, 5),
        c_empty=torch.zeros(2, empty_length, 5),
        scale=scale,
        sampler=sampler,
    )
    for t in (900, 500, 100):
        assert guided(torch.zeros(2, 4), t).shape == (2, 4)
    return rows


def test_guidance_doubles_the_batch_of_a_call_where_it_acts() -> None:
    assert calls_of(9.0) == [(4, 4, 4, 4)] * 3
    some = Sampler(guidance_interval=(200, 600))
    assert calls_of(9.0, some) == [(2, 2, 2, 2), (4, 4, 4, 4), (2, 2, 2, 2)]


def test_scale_one_builds_no_doubled_batch() -> None:
    # embeddings of unequal lengths cannot be joined, so that building the batch would fail
    assert calls_of(1.0, empty_length=9) == [(2, 2, 2, 2)] * 3
    with pytest.raises(RuntimeError, match="Expected size 9 but got size 7"):
        calls_of(9.0, empty_length=9)


def test_sampling_code_cannot_receive_an_image() -> None:
    functions: dict[Callable[..., object], set[str]] = {
        SiameseNetwork.encode: {"self", "zt", "t", "c_text"},
        SiameseNetwork.predict: {"self", "encoded", "c_text", "controls", "frozen"},
        Siamese.sample_latents: {
            *("self", "mask", "c_text", "c_empty", "noise"),
            *("steps", "guidance_scale", "sampler"),
        },
        ddim_sample: {"predict", "noise", "alpha_bar", "steps", "progress", "eta"},
        guided_predictor: {"predict", "condition", "c_text", "c_empty", "scale", "sampler"},
        guide: {"eps_empty", "eps_text", "scale"},
    }
    for function, names in functions.items():
        assert set(inspect.signature(function).parameters) == names, function
    for method in (SiameseDiffusionPipeline.__call__, SiameseDiffusionPipeline.from_pretrained):
        names = set(inspect.signature(method).parameters)
        assert not [name for name in names if "image" in name or "picture" in name]
        kinds = {p.kind for p in inspect.signature(method).parameters.values()}
        assert inspect.Parameter.VAR_KEYWORD not in kinds


def test_the_hint_is_computed_once_per_mask_and_both_prompts_share_a_batch(
    siamese: Siamese,
) -> None:
    net = siamese.network
    batches: dict[str, list[int]] = {"hint": [], "control": [], "encoder": [], "decoder": []}
    places: dict[str, nn.Module] = {
        "hint": net.control.controlnet_cond_embedding,
        "control": net.control.conv_in,
        "encoder": net.encoder.conv_in,
        "decoder": net.decoder.head,
    }
    handles = [
        place.register_forward_hook(
            lambda _module, _given, out, name=name: batches[name].append(len(out))
        )
        for name, place in places.items()
    ]
    try:
        sample(siamese, scale=9.0)
    finally:
        for handle in handles:
            handle.remove()
    assert batches == {"hint": [2], "control": [4] * 3, "encoder": [4] * 3, "decoder": [4] * 3}


def test_scale_one_never_looks_at_the_empty_prompt(siamese: Siamese) -> None:
    assert torch.equal(
        sample(siamese, scale=1.0), sample(siamese, scale=1.0, c_empty=torch.full((2, 7, 32), 9.0))
    )


def test_the_guided_sampler_equals_two_separate_predictions_under_one_hint(
    siamese: Siamese,
) -> None:
    noise = torch.Generator().manual_seed(4)
    net = siamese.network
    mask = (torch.rand(1, 3, 32, 32, generator=noise) > 0.5).float()
    c_text, c_empty = torch.randn(2, 1, 7, 32, generator=noise)
    start = torch.randn(1, 4, 4, 4, generator=noise)

    @torch.no_grad()
    def predict(zt: Tensor, t: int) -> Tensor:
        times = torch.tensor([t])
        eps = [
            net.predict(
                net.encode(zt, times, text), text, net.controls(zt, times, text, net.hint(mask))
            )
            for text in (c_empty, c_text)
        ]
        return guide(eps[0], eps[1], 3.0)

    alpha_bar = build_small_base(SMALL, size=32, seed=0).scheduler.alphas_cumprod
    expected = ddim_sample(predict, start, alpha_bar, 3)
    found = siamese.sample_latents(mask, c_text, c_empty, start, steps=3, guidance_scale=3.0)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
