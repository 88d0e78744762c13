from __future__ import annotations

from pathlib import Path

import pytest
import torch

from segmentation.sets import write_synthetic
from siamese_diffusion.core.config import build
from siamese_diffusion.data.pairs import PairFolder
from siamese_diffusion.segmentation.base import Segmenter
from siamese_diffusion.segmentation.mixture import mix
from siamese_diffusion.segmentation.run_folder import build_segmenter
from siamese_diffusion.segmentation.samples import Samples, load_folder, load_mixture
from siamese_diffusion.segmentation.settings import (
    SegFormerRunSettings,
    SegmentSettings,
    UNetRunSettings,
)
from siamese_diffusion.segmentation.task import SegmentTask

SMALL = {
    "inputs": {"size": 64},
    "network": {"width": 4},
    "train": {"batch_size": 4, "seed": 3},
    "augment": {"flip_horizontal": 0.5, "quarter_turns": 0.5},
}
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def pairs(
    phantoms: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Samples, list[int], Samples]:
    real = PairFolder.open(phantoms, split="train")
    root = write_synthetic(tmp_path_factory.mktemp("sets") / "s", real)
    samples, rows = load_mixture(mix(real, PairFolder.open(root)), 64)
    return samples, rows, load_folder(PairFolder.open(phantoms, split="val"), 64)


def make_task(
    pairs: tuple[Samples, list[int], Samples], **changes: object
) -> tuple[SegmentTask, Segmenter, SegmentSettings]:
    settings = build(UNetRunSettings, {**SMALL, **changes})
    model = build_segmenter(settings)
    samples, rows, validation = pairs
    task = SegmentTask(
        model, samples, rows, validation=validation, pools=None, settings=settings, steps=20
    )
    return task, model, settings


def test_a_batch_follows_from_step_and_position_alone(
    pairs: tuple[Samples, list[int], Samples],
) -> None:
    task = make_task(pairs)[0]
    whole = task.batch(5, range(4), CPU)
    half = task.batch(5, range(2, 4), CPU)
    assert whole["image"].shape == (4, 3, 64, 64) and whole["mask"].shape == (4, 1, 64, 64)
    assert torch.equal(whole["image"][2:], half["image"])
    assert torch.equal(whole["mask"][2:], half["mask"])
    assert not torch.equal(whole["image"], task.batch(6, range(4), CPU)["image"])


def test_masks_stay_zero_or_one_at_every_scale(pairs: tuple[Samples, list[int], Samples]) -> None:
    task = make_task(pairs, inputs={"size": 64, "scales": [96, 128], "scale_shares": [0.5, 0.5]})[0]
    sides = set()
    for step in range(8):
        batch = task.batch(step, range(4), CPU)
        assert set(batch["mask"].unique(sorted=True).tolist()) <= {0.0, 1.0}  # type: ignore[no-untyped-call]
        assert batch["image"].shape[-1] == batch["mask"].shape[-1]
        sides.add(batch["mask"].shape[-1])
    assert sides == {96, 128}


def test_without_shares_every_batch_is_used_at_every_scale(
    pairs: tuple[Samples, list[int], Samples],
) -> None:
    task = make_task(pairs, inputs={"size": 64, "scales": [64, 96, 128]})[0]
    batches = [task.batch(step, range(4), CPU)["mask"] for step in range(4)]
    assert [b.shape[-1] for b in batches] == [64, 96, 128, 64]
    small = torch.nn.functional.interpolate(batches[2], size=[64, 64], mode="nearest")
    assert torch.equal(small, batches[0])
    assert not torch.equal(batches[3], batches[0])


def test_the_composition_of_an_epoch_counts_what_it_uses(
    pairs: tuple[Samples, list[int], Samples],
) -> None:
    task = make_task(pairs)[0]
    per_epoch = len(pairs[1]) // 4
    counted: list[bool] = []
    for step in range(per_epoch, 2 * per_epoch):
        rows = task._order(step, range(4))
        counted += [bool(pairs[0].synthetic[row]) for row in rows]
    found = task.composition(per_epoch)
    assert found == {"number": 2, "real": counted.count(False), "synthetic": counted.count(True)}
    assert found == task.composition(2 * per_epoch - 1)


def test_validation_logs_dice_loss_and_composition_and_leaves_training_mode_on(
    pairs: tuple[Samples, list[int], Samples],
) -> None:
    task, model, _ = make_task(pairs)
    values = task.validate(CPU)
    assert {"dice", "loss/total", "epoch/real", "epoch/synthetic"} <= set(values)
    assert 0 <= values["dice"] <= 1 and model.training
    parts = values["loss/cross_entropy"] + values["loss/dice"]
    assert values["loss/total"] == pytest.approx(parts)


def test_a_plateau_lowers_the_rate(pairs: tuple[Samples, list[int], Samples]) -> None:
    task = make_task(pairs, schedule={"name": "plateau", "patience": 1})[0]
    rates = []
    for _ in range(4):  # the network stays as it is, so no loss is lower than the first
        task.validate(CPU)
        rates.append(task.learning_rate(0))
    assert rates == pytest.approx([1e-4, 1e-4, 5e-5, 5e-5])


def test_stochastic_depth_follows_from_seed_and_step(
    pairs: tuple[Samples, list[int], Samples],
) -> None:
    settings = build(SegFormerRunSettings, {"inputs": {"size": 64}, "train": {"batch_size": 4}})
    task = SegmentTask(
        build_segmenter(settings),
        pairs[0],
        pairs[1],
        validation=None,
        pools=None,
        settings=settings,
        steps=9,
    )
    batch = task.batch(0, range(4), CPU)
    torch.manual_seed(1)
    first = task.objective(0, batch)["loss/cross_entropy"].item()
    torch.manual_seed(2)
    assert task.objective(0, batch)["loss/cross_entropy"].item() == first
    assert task.objective(1, batch)["loss/cross_entropy"].item() != first
