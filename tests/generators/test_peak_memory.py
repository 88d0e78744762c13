"""The count on fake tensors against the count of the same step on real ones."""

from __future__ import annotations

import pytest
import torch

from siamese_diffusion.core.config import resolve
from siamese_diffusion.generators.peak_memory import FakeStep, counted_peak, empty_batch
from siamese_diffusion.generators.settings import SiameseFitSettings
from siamese_diffusion.generators.siamese import Siamese
from siamese_diffusion.models.base import Base
from siamese_diffusion.models.settings import SmallBaseSettings
from siamese_diffusion.models.small import build_small_base
from siamese_diffusion.training import precision
from siamese_diffusion.training.settings import TrainSettings

SMALL = SmallBaseSettings(
    autoencoder_widths=(16, 16, 16, 16),
    unet_widths=(16, 32),
    unet_layers=1,
    text_width=32,
    text_layers=1,
)
SETTINGS = resolve(SiameseFitSettings, overrides=["data.size=64"])
ERROR = 0.01  # found: below 0.005


@pytest.fixture(scope="module")
def base() -> Base:
    base = build_small_base(SMALL, size=64, seed=0)
    base.unet.requires_grad_(False)
    return base


@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointing"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_fake_step_takes_what_a_real_one_takes(
    base: Base, precision: str, checkpointing: bool
) -> None:
    train = TrainSettings.model_validate(
        {"precision": precision, "gradient_checkpointing": checkpointing}
    )
    fake = FakeStep(SETTINGS, base).peak_bytes(train, samples=3, gated=1)
    generator = Siamese.build(SETTINGS, base)
    batch = {name: torch.zeros_like(value) for name, value in empty_batch(base, 64, 3).items()}
    real = counted_peak(generator, batch, [0, 999, 999], step=train.steps, train=train)
    assert fake == pytest.approx(real, rel=ERROR)


@pytest.mark.parametrize(("has_bf16", "same_as"), [(True, "bf16"), (False, "fp32")])
def test_auto_takes_what_the_device_computes_in(
    base: Base, monkeypatch: pytest.MonkeyPatch, has_bf16: bool, same_as: str
) -> None:
    monkeypatch.setattr(precision, "multiplies_bf16", lambda device: has_bf16)
    step = FakeStep(SETTINGS, base)
    peaks = {
        name: step.peak_bytes(
            TrainSettings.model_validate({"precision": name}),
            samples=1,
            gated=0,
            device=torch.device("cpu"),
        )
        for name in ("auto", "fp32", "bf16")
    }
    assert peaks["fp32"] != peaks["bf16"]
    assert peaks["auto"] == peaks[same_as]


def test_more_samples_and_gated_samples_take_more(base: Base) -> None:
    step, train = FakeStep(SETTINGS, base), TrainSettings()
    plain = step.peak_bytes(train, samples=2, gated=0)
    assert plain < step.peak_bytes(train, samples=2, gated=2) < 2 * plain
    assert step.peak_bytes(train, samples=4, gated=0) > plain


def test_the_fixed_part_is_weights_moments_average_and_autoencoder(base: Base) -> None:
    generator = Siamese.build(SETTINGS, base)
    trained = sum(p.numel() for _, p in generator.trained_parameters())
    everything = sum(p.numel() for p in generator.objective.parameters())
    vae = sum(p.numel() for p in base.vae.parameters())
    step = FakeStep(SETTINGS, base)
    assert step.fixed_bytes(TrainSettings()) == 4 * (everything + vae) + 8 * trained
    lean = step.fixed_bytes(TrainSettings(optimizer="adamw8bit", ema_decay=0.9))
    assert lean == 4 * (everything + vae) + 6 * trained
