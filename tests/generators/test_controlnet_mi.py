"""ControlNet (M+I): the mix, who gets gradient, and six channels."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from reference.literal import disturb, toy_batch
from siamese_diffusion.core.config import build
from siamese_diffusion.core.errors import ConfigError
from siamese_diffusion.generators.controlnet_mi import ControlNetMI, ControlNetMISettings
from siamese_diffusion.models.base import load_base


def generator(folder: object, **settings: object) -> ControlNetMI:
    content: dict[str, object] = {"train": {"steps": 30, "batch_size": 2}, **settings}
    made = ControlNetMI.build(build(ControlNetMISettings, content), load_base(str(folder)))
    disturb(made.network)
    return made


def batch() -> dict[str, Tensor]:
    given = toy_batch([100, 700], latent=8)
    given["c_text"] = torch.randn(2, 77, 32, generator=torch.Generator().manual_seed(0))
    return given


def test_the_prediction_is_that_of_the_mixed_controls(small_base_folder: object) -> None:
    made, given = generator(small_base_folder), batch()
    net, t, c_text = made.network, given["t"], given["c_text"]
    with torch.no_grad():
        terms = made.objective(15, given)
        a = given["alpha_bar_t"].view(-1, 1, 1, 1)
        zt = a.sqrt() * given["z0"] + (1 - a).sqrt() * given["eps"]
        c_m = net.controls(zt, t, c_text, net.hint(given["mask"]))
        c_i = net.controls(zt, t, c_text, net.hint(given["image"]))
        mixed = tuple(0.5 * i + m for i, m in zip(c_i, c_m, strict=True))
        eps_mix = net.predict(net.encode(zt, t, c_text), c_text, mixed)
    torch.testing.assert_close(terms["loss/image"], (eps_mix - given["eps"]).square().mean())
    assert float(terms["weight/image"]) == 0.5


def test_gradient_reaches_both_paths_and_the_decoder(small_base_folder: object) -> None:
    made, given = generator(small_base_folder), batch()
    for name in ("mask", "image"):
        given[name].requires_grad_()
    torch.autograd.backward(made.objective(15, given)["loss/image"])
    for name in ("mask", "image"):
        grad = given[name].grad
        assert grad is not None and bool(grad.any()), name
    for part in (made.network.control, made.network.decoder):
        assert all(p.grad is not None and bool(p.grad.any()) for p in part.parameters())
    assert not any(p.grad is not None for p in made.network.encoder.parameters())


def test_at_the_start_the_image_has_no_weight_and_in_sampling_the_full_one(
    small_base_folder: object,
) -> None:
    made, given = generator(small_base_folder), batch()
    other = {**given, "image": 1 - given["image"]}
    with torch.no_grad():
        start = [made.objective(0, b)["loss/image"] for b in (given, other)]
        assert torch.equal(start[0], start[1])
        losses = [made.validation_loss(b) for b in (given, other)]
    assert not torch.equal(losses[0], losses[1])


@pytest.mark.parametrize("hint", ["sparse", "dense"])
def test_concatenation_runs_one_hint_of_six_channels(small_base_folder: object, hint: str) -> None:
    made = generator(small_base_folder, fusion="concat", model={"hint": hint})
    first = next(made.network.control.controlnet_cond_embedding.parameters())
    assert first.shape[1] == 6
    given = batch()
    terms = made.objective(15, given)
    assert set(terms) == {"loss/image"}
    assert len(made.condition(given)) == 1


def test_masks_alone_are_refused(small_base_folder: object) -> None:
    made, given = generator(small_base_folder), batch()
    with pytest.raises(ConfigError, match="ControlNetMI samples from masks and images, but only"):
        made.sample_latents(
            given["mask"],
            given["c_text"],
            given["c_text"],
            given["z0"],
            steps=2,
            guidance_scale=1,
        )
