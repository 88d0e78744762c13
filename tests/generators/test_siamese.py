"""The paper's method as a generator: fresh weights, files, validation and sampling."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from siamese_diffusion.core.config import build
from siamese_diffusion.core.errors import ConfigError
from siamese_diffusion.generators.settings import FitSettings, SiameseFitSettings
from siamese_diffusion.generators.siamese import Siamese
from siamese_diffusion.models.base import load_base
from siamese_diffusion.training.layout import lay_out


def method_of(base_folder: Path, *, seed: int = 0, **changes: object) -> Siamese:
    settings = build(SiameseFitSettings, {"train": {"seed": seed}, **changes})
    return Siamese.build(settings, load_base(base_folder))


def stirred(base_folder: Path) -> Siamese:
    """With controls that are not zero."""
    method = method_of(base_folder)
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in method.network.control.named_parameters():
            if "controlnet_" in name:
                parameter.normal_(0, 0.1)
    return method


def state(method: Siamese) -> dict[str, torch.Tensor]:
    return dict(method.objective.state_dict())


def test_fresh_weights_depend_on_the_seed_alone(small_base_folder: Path) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = state(method_of(small_base_folder))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    second, other = state(method_of(small_base_folder)), state(method_of(small_base_folder, seed=1))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_the_weights_files_hold_what_is_trained_and_no_more(small_base_folder: Path) -> None:
    method = method_of(small_base_folder)
    filed = {p for module in method.modules.values() for p in module.parameters()}
    trained = {p for _, p in method.trained_parameters()}
    assert set(method.modules) == {"control", "decoder"}
    assert trained == filed
    names = [name for name, _ in method.trained_parameters()]
    assert names == [name for name, _ in method_of(small_base_folder).trained_parameters()]
    frozen = method_of(small_base_folder, model={"train_decoder": False})
    assert all(name.startswith("control.") for name, _ in frozen.trained_parameters())


@pytest.mark.parametrize(
    ("objective", "needed"),
    [
        ({}, True),
        ({"image_pass": False}, True),
        ({"image_pass": False, "consistency_weight": 0}, True),
        ({"image_pass": False, "consistency_weight": 0, "online_augment": False}, False),
    ],
)
def test_images_are_needed_unless_only_mask_diffusion_is_trained(
    small_base_folder: Path, objective: dict[str, object], needed: bool
) -> None:
    assert method_of(small_base_folder, objective=objective).needs_images is needed


def test_settings_of_another_generator_are_refused(small_base_folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"generator 'siamese' got settings of 'other'"):
        Siamese.build(FitSettings(generator="other"), load_base(small_base_folder))


def test_gradient_checkpointing_is_passed_on(small_base_folder: Path) -> None:
    train = {"gradient_checkpointing": True}
    on = Siamese.build(build(SiameseFitSettings, {"train": train}), load_base(small_base_folder))
    assert on.network.gradient_checkpointing
    assert not method_of(small_base_folder).network.gradient_checkpointing


def test_the_validation_loss_is_the_squared_error_of_the_mask_prediction(
    small_base_folder: Path,
) -> None:
    method = stirred(small_base_folder)
    draws = torch.Generator().manual_seed(0)
    z0, eps = (torch.randn(2, 4, 8, 8, generator=draws) for _ in range(2))
    alpha_bar_t = torch.tensor([0.9, 0.3])
    batch = {
        "z0": z0,
        "eps": eps,
        "t": torch.tensor([50, 700]),
        "alpha_bar_t": alpha_bar_t,
        "c_text": torch.randn(2, 77, 32, generator=draws),
        "mask": torch.ones(2, 3, 64, 64),
    }
    net = method.network
    a = alpha_bar_t.reshape(2, 1, 1, 1)
    zt = a.sqrt() * z0 + (1 - a).sqrt() * eps
    with torch.no_grad():
        c_m = net.controls(zt, batch["t"], batch["c_text"], net.hint(batch["mask"]))
        eps_m = net.predict(net.encode(zt, batch["t"], batch["c_text"]), batch["c_text"], c_m)
        found = method.validation_loss(batch)
    assert found.shape == (2,)
    torch.testing.assert_close(found, ((eps_m - eps) ** 2).mean(dim=(1, 2, 3)))


def sample(
    method: Siamese, mask: torch.Tensor, *, guidance: float = 3.0, rows: slice = slice(None)
) -> torch.Tensor:
    draws = torch.Generator().manual_seed(1)
    n = len(mask)
    noise = torch.randn(n, 4, 8, 8, generator=draws)[rows]
    c_text, c_empty = (torch.randn(n, 77, 32, generator=draws)[rows] for _ in range(2))
    return method.sample_latents(
        mask[rows], c_text, c_empty, noise, steps=3, guidance_scale=guidance
    )


def test_samples_follow_their_masks_and_no_neighbours(small_base_folder: Path) -> None:
    method = stirred(small_base_folder)
    mask = torch.zeros(3, 3, 64, 64)
    mask[1, :, 10:40, 10:40] = 1
    whole = sample(method, mask)
    assert whole.shape == (3, 4, 8, 8) and not whole.requires_grad
    # kernels round differently for other batch sizes
    for row in range(3):
        alone = sample(method, mask, rows=slice(row, row + 1))
        torch.testing.assert_close(alone, whole[row : row + 1], rtol=1e-3, atol=1e-4)
    other = sample(method, torch.zeros(3, 3, 64, 64))
    changed, kept = ((other[row] - whole[row]).abs().max() for row in (1, 2))
    assert float(changed) > 20 * float(kept)


def test_guidance_one_is_the_prompt_alone_and_others_are_not(small_base_folder: Path) -> None:
    method = stirred(small_base_folder)
    mask = torch.ones(1, 3, 64, 64)
    plain = sample(method, mask, guidance=1.0)
    # just beside 1, both branches run and must meet it
    torch.testing.assert_close(sample(method, mask, guidance=1 + 1e-6), plain, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(sample(method, mask, guidance=3.0), plain, atol=1e-3)


def test_losses_and_gradients_do_not_depend_on_the_layout_of_the_weights(
    small_base_folder: Path,
) -> None:
    torch.manual_seed(5)
    batch = {
        "z0": torch.randn(2, 4, 8, 8),
        "eps": torch.randn(2, 4, 8, 8),
        "t": torch.tensor([50, 700]),
        "alpha_bar_t": torch.tensor([0.9, 0.2]),
        "c_text": torch.randn(2, 77, 32),
        "mask": (torch.rand(2, 1, 64, 64) > 0.5).float().expand(-1, 3, -1, -1),
        "image": torch.rand(2, 3, 64, 64),
    }
    found = []
    for layout in (torch.contiguous_format, torch.channels_last):
        method = stirred(small_base_folder)
        lay_out(method.objective, layout)
        terms: dict[str, torch.Tensor] = method.objective(2999, batch)
        losses = torch.stack([value for name, value in terms.items() if name.startswith("loss/")])
        torch.autograd.backward(losses.sum())
        grads = {n: p.grad for n, p in method.trained_parameters()}
        found.append((losses.detach(), grads))
    (plain, plain_grads), (innermost, innermost_grads) = found
    torch.testing.assert_close(innermost, plain, rtol=1e-5, atol=1e-7)
    for name, grad in plain_grads.items():
        assert grad is not None
        torch.testing.assert_close(innermost_grads[name], grad, rtol=1e-3, atol=2e-6)
