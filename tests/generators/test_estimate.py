"""`--dry-run`: counts that can be made by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from siamese_diffusion.core.config import build, to_yaml
from siamese_diffusion.generators.estimate import describe, memory_mb
from siamese_diffusion.generators.fitting import plan_fit, resolve_settings
from siamese_diffusion.generators.run_folder import generator_class
from siamese_diffusion.models.base import load_base
from siamese_diffusion.models.siamese import SiameseNetwork
from siamese_diffusion.training.settings import TrainSettings


@pytest.fixture
def all_pairs(phantoms: Path, tmp_path: Path) -> Path:
    """The phantoms without split lists."""
    for name in ("images", "masks"):
        (tmp_path / name).symlink_to(phantoms / name)
    return tmp_path


def describe_with(data: Path, base: Path, *overrides: str) -> str:
    asked, settings = resolve_settings(overrides=["data.size=64", *overrides])
    return describe(plan_fit(data, base, settings=settings, asked=asked))


def test_settings_data_and_base_are_told(phantoms: Path, small_base_folder: Path) -> None:
    text = describe_with(phantoms, small_base_folder, "train.seed=5")
    _, settings = resolve_settings(overrides=["data.size=64", "train.seed=5"])
    assert text.startswith(to_yaml(settings).rstrip())
    n = len((phantoms / "train.txt").read_text().split())
    assert f"data: {n} pairs in '{phantoms}', split 'train'; " in text
    assert f"base: {small_base_folder} (folder), first width 16" in text


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        # 20 pairs: 3 batches of 6 and 2 pairs left over
        (
            ["train.batch_size=6", "train.steps=60"],
            "steps: 60 of 6 (effective batch; micro-batch 6, accumulation 1 on one process), "
            "3 steps per epoch, 20.0 epochs",
        ),
        (
            ["train.batch_size=6", "train.micro_batch_size=2", "train.steps=5"],
            "steps: 5 of 6 (effective batch; micro-batch 2, accumulation 3 on one process), "
            "3 steps per epoch, 1.7 epochs",
        ),
        # smaller than a batch: 48 samples a step are 2.4 times all pairs
        (
            ["train.batch_size=48", "train.steps=10"],
            "steps: 10 of 48 (effective batch; micro-batch 48, accumulation 1 on one process), "
            "less than 1 steps per epoch, 24.0 epochs",
        ),
    ],
)
def test_steps_and_epochs_are_counted(
    all_pairs: Path, small_base_folder: Path, overrides: list[str], line: str
) -> None:
    assert line in describe_with(all_pairs, small_base_folder, *overrides)


def test_parameters_are_counted_as_they_are(phantoms: Path, small_base_folder: Path) -> None:
    base = load_base(small_base_folder)
    unet = sum(p.numel() for p in base.unet.up_blocks.parameters())
    head = [*base.unet.conv_norm_out.parameters(), *base.unet.conv_out.parameters()]
    decoder = unet + sum(p.numel() for p in head)
    text = describe_with(phantoms, small_base_folder)
    assert f"decoder: {decoder / 1e6:.2f} M parameters, {decoder / 1e6:.2f} M trained" in text
    frozen = describe_with(phantoms, small_base_folder, "model.train_decoder=false")
    assert f"decoder: {decoder / 1e6:.2f} M parameters, 0.00 M trained" in frozen


def test_fixed_memory_is_weights_gradients_and_moments(small_base_folder: Path) -> None:
    _, settings = resolve_settings(overrides=["data.size=64"])
    base = load_base(small_base_folder)
    method = generator_class("siamese").build(settings, base)
    network = method.objective.network
    assert isinstance(network, SiameseNetwork)
    trained = sum(p.numel() for _, p in method.trained_parameters())
    frozen = sum(p.numel() for p in network.encoder.parameters())
    plain = build(TrainSettings, {})
    averaged = build(TrainSettings, {"ema_decay": 0.9})
    with torch.device("meta"):
        method.objective.to("meta")
    fixed, per_sample = memory_mb(method, base, size=64, train=plain)
    assert fixed == pytest.approx((16 * trained + 4 * frozen) / 1e6)
    more, _ = memory_mb(method, base, size=64, train=averaged)
    assert more - fixed == pytest.approx(4 * trained / 1e6)
    network.gradient_checkpointing = True
    _, less = memory_mb(method, base, size=64, train=plain)
    assert 0 < less < per_sample


@pytest.mark.parametrize("precision", ["fp32", "bf16", "auto"])
def test_memory_is_said_to_be_that_of_fp32(
    phantoms: Path, small_base_folder: Path, precision: str
) -> None:
    text = describe_with(phantoms, small_base_folder, f"train.precision={precision}")
    assert "counted in fp32 whatever the precision" in text


def test_looking_only_writes_nothing_and_keeps_the_base(
    phantoms: Path, small_base_folder: Path
) -> None:
    asked, settings = resolve_settings(overrides=["data.size=64"])
    plan = plan_fit(phantoms, small_base_folder, settings=settings, asked=asked)
    before = {path: path.stat().st_mtime_ns for path in phantoms.rglob("*")}
    sha = load_base(small_base_folder).sha256
    describe(plan)
    assert {path: path.stat().st_mtime_ns for path in phantoms.rglob("*")} == before
    assert plan.base.sha256 == sha
