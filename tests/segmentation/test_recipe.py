from __future__ import annotations

import pytest
import torch

from siamese_diffusion.core.config import build
from siamese_diffusion.core.errors import ConfigError
from siamese_diffusion.segmentation.recipe import (
    Plateau,
    build_optimizer,
    parameter_groups,
    scheduled_rate,
    updates,
)
from siamese_diffusion.segmentation.sanet import SANet
from siamese_diffusion.segmentation.segformer import SegFormer
from siamese_diffusion.segmentation.settings import (
    OptimizerSettings,
    PolypPVTRunSettings,
    SANetRunSettings,
    ScheduleSettings,
    SegFormerRunSettings,
)


def test_segformers_norms_are_free_of_decay_and_its_head_moves_ten_times_as_fast() -> None:
    groups = parameter_groups(SegFormer(), SegFormerRunSettings().optimizer)
    assert [(g["weight_decay"], g["lr_scale"]) for g in groups] == [
        (0.01, 1.0),
        (0.0, 1.0),
        (0.01, 10.0),
        (0.0, 10.0),
    ]
    free = [p for g in groups if g["weight_decay"] == 0 for p in g["params"]]
    assert all(p.dim() == 1 for p in free)


def test_sanet_trains_by_nesterov_with_a_slower_encoder() -> None:
    optimizer = build_optimizer(SANet(), SANetRunSettings().optimizer)
    assert isinstance(optimizer, torch.optim.SGD)
    assert optimizer.defaults["nesterov"] and optimizer.defaults["momentum"] == 0.9
    assert [g["lr_scale"] * 0.4 for g in optimizer.param_groups] == pytest.approx([0.04, 0.4])


def test_sanets_rate_halves_at_its_64th_and_96th_epoch() -> None:
    schedule, steps = SANetRunSettings().schedule, 128 * 22
    rates = [scheduled_rate(0.4, schedule, epoch * 22, steps) for epoch in (62, 63, 94, 95, 127)]
    assert rates == pytest.approx([0.4, 0.2, 0.2, 0.1, 0.1])
    assert scheduled_rate(0.4, schedule, 63 * 22 - 1, steps) == 0.4


def test_poly_rises_then_falls_to_nothing() -> None:
    schedule = SegFormerRunSettings().schedule
    assert scheduled_rate(1.0, schedule, 0, 100) == pytest.approx(0.2)
    assert scheduled_rate(1.0, schedule, 4, 100) == 1.0
    assert scheduled_rate(1.0, schedule, 50, 100) == pytest.approx(0.5)
    assert scheduled_rate(1.0, schedule, 99, 100) == pytest.approx(0.01)


def test_plateau_follows_torchs_scheduler() -> None:
    losses = [1.0, 0.9, 0.95, 0.93, 0.92, 0.8, 0.81, 0.82, 0.83, 0.84, 0.79999, 0.9]
    plateau = Plateau(ScheduleSettings(name="plateau", patience=2))
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    reference = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=2)
    for loss in losses:
        plateau.follow(loss)
        reference.step(loss)
        assert plateau.factor == optimizer.param_groups[0]["lr"]
    assert plateau.factor < 1


def test_updates_count_every_scale_of_every_batch() -> None:
    assert updates(1450, 16, 99, PolypPVTRunSettings().inputs.scales) == 99 * 90 * 3
    assert updates(1450, 64, 128, ()) == 128 * 22
    assert updates(5, 16, 10, ()) == 10


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ({"schedule": {"milestones": [0.5, 1.5]}}, r"between 0 and 1, got \[0\.5, 1\.5\]"),
        ({"inputs": {"size": 350}}, "multiple of 32"),
        ({"inputs": {"scales": [100], "scale_shares": []}}, r"from 64 on, got \[100\]"),
        ({"inputs": {"scale_shares": [0.5, 0.5]}}, "2 values for 4 scales"),
        ({"inputs": {"scale_shares": [0.1, 0.1, 0.1, 0.1]}}, "add up to 1, got 0.4"),
        ({"optimizer": {"name": "adagrad"}}, "adagrad"),
        ({"optimiser": {}}, "unknown setting 'optimiser'; did you mean 'optimizer'"),
    ],
)
def test_impossible_settings_are_refused(override: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(SANetRunSettings, override)


def test_decay_of_norms_is_on_by_default() -> None:
    assert {g["weight_decay"] for g in parameter_groups(SANet(), OptimizerSettings())} == {1e-4}
