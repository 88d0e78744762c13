"""ADC: who gets which gradient, what the weights do, and a student that ControlNet can load."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reference.literal import disturb, toy_batch
from siamese_diffusion.core.config import build
from siamese_diffusion.generators.adc import ADC, ADCSettings, latent_mask
from siamese_diffusion.generators.controlnet import ControlNet
from siamese_diffusion.generators.fitting import resolve_settings
from siamese_diffusion.models.base import load_base


def made(folder: Path, *, fresh: bool = False, **settings: object) -> ADC:
    generator = ADC.build(build(ADCSettings, settings), load_base(folder))
    if not fresh:
        disturb(generator.network)
    return generator


def batch(seed: int = 2) -> dict[str, Tensor]:
    given = toy_batch([100, 700], latent=8, seed=seed)
    given["c_text"] = torch.randn(2, 77, 32, generator=torch.Generator().manual_seed(0))
    return given


def parts(generator: ADC) -> dict[str, nn.Module]:
    student, teacher = generator.network.student, generator.network.teacher
    return {
        "mask branch": student.control,
        "student decoder": student.decoder,
        "image branch": teacher.control,
        "teacher decoder": teacher.decoder,
        "encoder": student.encoder,
    }


def reached(generator: ADC, term: str) -> set[str]:
    generator.network.zero_grad(set_to_none=True)
    torch.autograd.backward(generator.objective(0, batch())[term])
    return {
        name
        for name, part in parts(generator).items()
        if any(p.grad is not None and bool(p.grad.any()) for p in part.parameters())
    }


def test_student_teacher_and_base_coincide_at_the_start(small_base_folder: Path) -> None:
    generator, given = made(small_base_folder, fresh=True), batch()
    base = load_base(small_base_folder).unet
    a = given["alpha_bar_t"].view(-1, 1, 1, 1)
    zt = a.sqrt() * given["z0"] + (1 - a).sqrt() * given["eps"]
    with torch.no_grad():
        plain = base(zt, given["t"], given["c_text"], return_dict=False)[0]
        terms = generator.objective(0, given)
    loss = F.mse_loss(plain, given["eps"])
    torch.testing.assert_close(terms["loss/mask"], loss)
    torch.testing.assert_close(terms["loss/teacher"], loss)
    assert float(terms["loss/distill"]) == 0


def test_the_teacher_shares_the_encoder_and_nothing_else(small_base_folder: Path) -> None:
    network = made(small_base_folder).network
    student, teacher = network.student, network.teacher
    for name in ("conv_in", "time_embedding", "down_blocks", "mid_block"):
        assert getattr(teacher.encoder, name) is getattr(student.encoder, name)
    own = {p.data_ptr() for part in (teacher.control, teacher.decoder) for p in part.parameters()}
    others = {
        p.data_ptr() for part in (student.control, student.decoder) for p in part.parameters()
    }
    assert not own & others


@pytest.mark.parametrize(
    ("term", "expected"),
    [
        ("loss/mask", {"mask branch", "student decoder"}),
        ("loss/teacher", {"mask branch", "image branch", "teacher decoder"}),
        ("loss/distill", {"mask branch", "student decoder"}),
    ],
)
def test_each_term_reaches_its_own_parts(
    term: str, expected: set[str], small_base_folder: Path
) -> None:
    assert reached(made(small_base_folder), term) == expected


def test_the_terms_are_those_of_the_document(small_base_folder: Path) -> None:
    generator, given = made(small_base_folder, image_weight=0.25, distill_weight=2.0), batch()
    student, teacher = generator.network.student, generator.network.teacher
    t, c_text, eps = given["t"], given["c_text"], given["eps"]
    a = given["alpha_bar_t"].view(-1, 1, 1, 1)
    zt = a.sqrt() * given["z0"] + (1 - a).sqrt() * eps
    with torch.no_grad():
        terms = generator.objective(0, given)
        c_m = student.controls(zt, t, c_text, student.hint(given["mask"]))
        c_i = teacher.controls(zt, t, c_text, teacher.hint(given["image"]))
        encoded = student.encode(zt, t, c_text)
        eps_s = student.predict(encoded, c_text, c_m)
        mix = tuple(m + 0.25 * i for m, i in zip(c_m, c_i, strict=True))
        eps_t = teacher.predict(encoded, c_text, mix)
    small = given["mask"][:, :1, ::8, ::8]
    r = small.mean((1, 2, 3), keepdim=True)
    weights = torch.where(small > 0, 1 - r, r)
    torch.testing.assert_close(terms["loss/mask"], F.mse_loss(eps_s, eps))
    torch.testing.assert_close(terms["loss/teacher"], F.mse_loss(eps_t, eps))
    expected = 2 * (weights * (eps_s - eps_t).square()).mean()
    torch.testing.assert_close(terms["loss/distill"], expected)


def test_as_released_only_the_student_is_trained_and_no_image_is_needed(
    small_base_folder: Path,
) -> None:
    _, settings = resolve_settings(generator="adc", preset="adc-released")
    assert isinstance(settings, ADCSettings)
    assert (settings.teacher_weight, settings.distill_weight) == (0, 0)
    assert settings.image_weight == 0.25 and settings.train.batch_size == 32
    generator = made(small_base_folder, teacher_weight=0, distill_weight=0)
    assert not generator.needs_images
    given = batch()
    del given["image"]
    assert set(generator.objective(0, given)) == {"loss/mask"}
    assert reached(generator, "loss/mask") == {"mask branch", "student decoder"}
    assert {n.split(".")[0] for n, _ in generator.trained_parameters()} == {"student"}


def test_the_student_alone_is_controlnet_with_a_dense_hint(small_base_folder: Path) -> None:
    generator = made(small_base_folder, data={"size": 64})
    _, settings = resolve_settings(
        generator="controlnet", overrides=["model.hint=dense", "data.size=64"]
    )
    controlnet = ControlNet.build(settings, load_base(small_base_folder))
    for name, module in controlnet.modules.items():
        module.load_state_dict(generator.modules[name].state_dict())
    controlnet.network.encoder.load_state_dict(generator.network.student.encoder.state_dict())
    given = batch()
    arguments = (given["mask"], given["c_text"], torch.zeros_like(given["c_text"]), given["eps"])
    ours = generator.sample_latents(*arguments, steps=3, guidance_scale=2)
    theirs = controlnet.sample_latents(*arguments, steps=3, guidance_scale=2)
    assert torch.equal(ours, theirs)


def test_a_lesion_below_a_latent_cell_is_lost_by_nearest_and_kept_by_max() -> None:
    mask = torch.zeros(1, 3, 64, 64)
    mask[..., 20:23, 20:23] = 1
    assert not latent_mask(mask, (8, 8)).any()
    kept = latent_mask(mask, (8, 8), "max")
    assert kept.nonzero().tolist() == [[0, 0, 2, 2]]


def test_without_a_lesion_the_distillation_is_zero_and_the_rest_is_not(
    small_base_folder: Path,
) -> None:
    generator, given = made(small_base_folder), batch()
    given["mask"] = torch.zeros_like(given["mask"])
    with torch.no_grad():
        terms = generator.objective(0, given)
    assert float(terms["loss/distill"]) == 0
    assert float(terms["loss/mask"]) > 0 and float(terms["loss/teacher"]) > 0
