"""ArSDM as a generator: its space, loss, sampler and warnings."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from reference.literal import disturb
from siamese_diffusion.core.config import build
from siamese_diffusion.core.errors import ConfigError
from siamese_diffusion.data.phantom import write_phantom
from siamese_diffusion.generators.arsdm import ArSDM, ArSDMSettings, one_hot
from siamese_diffusion.generators.fitting import plan_fit, resolve_settings

SMALL: dict[str, object] = {
    "data": {"size": 16},
    "model": {
        "width": 32,
        "multipliers": [1, 1],
        "blocks": 1,
        "attention_factors": [2],
        "head_channels": 16,
    },
}


def made(**more: object) -> ArSDM:
    settings = build(ArSDMSettings, {**SMALL, **more})
    generator = ArSDM.build(settings, ArSDM.own_space(settings))
    disturb(generator.network)
    return generator


def batch(area: int) -> dict[str, Tensor]:
    draws = torch.Generator().manual_seed(0)
    mask = torch.zeros(1, 3, 16, 16)
    mask.flatten(2)[..., :area] = 1
    return {
        "z0": torch.randn(1, 3, 16, 16, generator=draws).clamp(-1, 1),
        "eps": torch.randn(1, 3, 16, 16, generator=draws),
        "t": torch.tensor([300]),
        "alpha_bar_t": torch.tensor([0.5]),
        "c_text": torch.zeros(1, 1, 1),
        "mask": mask,
    }


def test_it_works_on_pixels_under_the_released_schedule() -> None:
    generator = made()
    root = torch.linspace(0.0015**0.5, 0.0205**0.5, 1000, dtype=torch.float64)
    expected = torch.cumprod(1 - root.square(), 0).float()
    torch.testing.assert_close(generator.alpha_bar, expected)


def test_its_loss_is_the_absolute_error_weighted_by_area() -> None:
    generator, given = made(), batch(64)
    with torch.no_grad():
        error = (generator.training_prediction(given) - given["eps"]).abs()
        found = generator.objective(0, given)
    lesion, rest = error.flatten(2)[..., :64], error.flatten(2)[..., 64:]
    expected = (0.75 * lesion.sum() + 0.25 * rest.sum()) / error.numel()
    torch.testing.assert_close(found["loss/adaptive"], expected)
    plain = made(adaptive=False)
    with torch.no_grad():
        torch.testing.assert_close(plain.objective(0, given)["loss/mask"], error.mean())


def test_without_a_lesion_the_adaptive_loss_and_its_gradient_are_zero() -> None:
    generator = made()
    loss = generator.objective(0, batch(0))["loss/adaptive"]
    assert float(loss.detach()) == 0
    torch.autograd.backward(loss)
    assert not any(bool(p.grad.any()) for p in generator.network.parameters() if p.grad is not None)


def test_the_mask_becomes_background_and_lesion() -> None:
    mask = batch(3)["mask"]
    labels = one_hot(mask)
    assert torch.equal(labels.sum(1), torch.ones(1, 16, 16))
    assert int(labels[:, 1].sum()) == 3


def test_guidance_has_no_effect_and_eta_has() -> None:
    given = batch(64)
    noise = given["eps"]

    def drawn(generator: ArSDM, scale: float) -> Tensor:
        text = given["c_text"]
        return generator.sample_latents(
            given["mask"], text, text, noise, steps=3, guidance_scale=scale
        )  # fmt: skip

    generator = made()
    assert torch.equal(drawn(generator, 1.0), drawn(generator, 9.0))
    assert not torch.equal(drawn(generator, 1.0), drawn(made(eta=0.0), 1.0))


@pytest.mark.parametrize(("levels", "factor", "padded"), [(5, 16, 32), (6, 32, 32)])
def test_a_size_its_levels_cannot_halve_is_refused(levels: int, factor: int, padded: int) -> None:
    model = {"width": 32, "multipliers": [1] * levels, "head_channels": 16}
    settings = build(ArSDMSettings, {"data": {"size": 24}, "model": model})
    with pytest.raises(ConfigError, match=rf"data\.size 24 is not a multiple of {factor}") as error:
        ArSDM.build(settings, ArSDM.own_space(settings))
    assert f"data.size={padded}" in str(error.value.hint)


def test_lesion_free_images_are_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:  # fmt: skip
    data = tmp_path / "data"
    write_phantom(data, pairs=6, seed=0, size=64)
    first = sorted((data / "masks").iterdir())[0]
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(first)
    for list_ in data.glob("*.txt"):
        if list_.name != "prompt.txt":
            list_.unlink()
    for generator, warned in (("arsdm", True), ("siamese", False)):
        caplog.clear()
        overrides = ["data.size=64"]
        asked, settings = resolve_settings(generator=generator, overrides=overrides)
        with caplog.at_level(logging.WARNING):
            plan_fit(data, "tiny", settings=settings, asked=asked)
        said = "1 of 6 pairs have no lesion or nothing else: ArSDM's adaptive loss is zero"
        assert (said in caplog.text) == warned
