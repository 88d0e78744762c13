"""Batches, validation losses and grids as functions of seed, step and position."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from siamese_diffusion.core.config import build
from siamese_diffusion.core.folders import RunPaths
from siamese_diffusion.core.seeding import generator as stream
from siamese_diffusion.data.order import sample_order
from siamese_diffusion.data.pairs import PairFolder
from siamese_diffusion.generators.run_folder import generator_class
from siamese_diffusion.generators.settings import SiameseFitSettings
from siamese_diffusion.generators.task import PairTask
from siamese_diffusion.generators.tensors import PairTensors, pair_tensors
from siamese_diffusion.models.base import load_base

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def pairs(
    phantoms: Path, small_base_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> PairTensors:
    return pair_tensors(
        load_base(small_base_folder),
        PairFolder.open(phantoms),
        size=64,
        cache=tmp_path_factory.mktemp("cache"),
        device=CPU,
        base_sha256="b",
        quiet=True,
    )


def task_of(pairs: PairTensors, base_folder: Path, out: Path, **changes: object) -> PairTask:
    base = load_base(base_folder)
    settings = build(
        SiameseFitSettings,
        {
            "data": {"size": 64},
            "train": {"batch_size": 6, "steps": 30},
            "preview": {"pairs": 2, "steps": 2, "validation_pairs": 2},
            **changes,
        },
    )
    torch.manual_seed(0)
    method = generator_class("siamese").build(settings, base)
    with torch.no_grad():  # zero convolutions would hide the controls
        for name, parameter in method.modules["control"].named_parameters():
            if "controlnet_" in name:
                parameter.normal_(0, 0.05)
    return PairTask(method, base, pairs, pairs, settings=settings, paths=RunPaths(out))


@pytest.fixture
def task(pairs: PairTensors, small_base_folder: Path, tmp_path: Path) -> PairTask:
    return task_of(pairs, small_base_folder, tmp_path)


def test_a_sample_does_not_depend_on_its_company_or_on_what_was_drawn_before(
    task: PairTask,
) -> None:
    whole = task.batch(7, range(6), CPU)
    torch.manual_seed(99)
    np.random.seed(99)
    for position in (5, 0, 3):
        alone = task.batch(7, [position], CPU)
        for name, value in whole.items():
            assert torch.equal(alone[name], value[position : position + 1]), name


def test_steps_positions_and_seeds_draw_differently(
    pairs: PairTensors, small_base_folder: Path, tmp_path: Path, task: PairTask
) -> None:
    other = task_of(
        pairs, small_base_folder, tmp_path, train={"batch_size": 6, "steps": 30, "seed": 1}
    )
    batches = [task.batch(0, range(6), CPU), task.batch(1, range(6), CPU)]
    batches.append(other.batch(0, range(6), CPU))
    draws = torch.cat([batch["eps"] for batch in batches]).flatten(1)
    assert len({row.numpy().tobytes() for row in draws}) == 18
    # 256 numbers each: correlations are within six standard errors
    correlations = torch.corrcoef(draws) - torch.eye(18)
    assert float(correlations.abs().max()) < 6 / 256**0.5


def test_a_batch_is_assembled_as_the_equations_want_it(task: PairTask, pairs: PairTensors) -> None:
    batch = task.batch(3, range(6), CPU)
    rows = sample_order(42, 3, range(6), n=20, batch_size=6)
    draws = stream(42, "train", 3, 2)
    posterior, eps = (torch.randn((4, 8, 8), generator=draws) for _ in range(2))
    t = int(torch.randint(1000, (), generator=draws))
    row = rows[2]
    assert torch.equal(batch["eps"][2], eps) and int(batch["t"][2]) == t
    assert torch.equal(batch["z0"][2], pairs.mean[row] + pairs.std[row] * posterior)
    assert torch.equal(batch["mask"][2], (pairs.mask[row] > 127).float().expand(3, -1, -1))
    assert torch.equal(batch["image"][2], pairs.image[row] / 255)
    # scaled-linear betas of Stable Diffusion, in float64
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    expected = float(np.cumprod(1 - betas)[t])
    assert float(batch["alpha_bar_t"][2]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("probability", "rows"), [(0.0, {1}), (1.0, {0})])
def test_prompts_are_emptied_as_often_as_asked(
    pairs: PairTensors,
    small_base_folder: Path,
    tmp_path: Path,
    probability: float,
    rows: set[int],
) -> None:
    data = {"size": 64, "empty_prompt_probability": probability}
    task = task_of(pairs, small_base_folder, tmp_path, data=data)
    context = task.batch(0, range(6), CPU)["c_text"]
    for row in rows:
        assert all(torch.equal(c, pairs.context[row]) for c in context)


def test_images_travel_only_where_they_are_needed(
    pairs: PairTensors, small_base_folder: Path, tmp_path: Path
) -> None:
    alone = {"image_pass": False, "consistency_weight": 0, "online_augment": False}
    task = task_of(pairs, small_base_folder, tmp_path, objective=alone)
    assert "image" not in task.batch(0, range(6), CPU)


@pytest.mark.parametrize("step", [0, 25])
def test_terms_over_micro_batches_average_to_those_of_the_batch(
    pairs: PairTensors, small_base_folder: Path, tmp_path: Path, step: int
) -> None:
    # half of the timesteps count in Eq. (12) after K_tau = 10, so micro-batches differ in it
    wide = {"augment_below_timestep": 500}
    task = task_of(pairs, small_base_folder, tmp_path, objective=wide)

    def terms(positions: range) -> dict[str, float]:
        found: dict[str, torch.Tensor] = task.objective(step, task.batch(step, positions, CPU))
        return {name: float(value.detach()) for name, value in found.items()}

    whole = terms(range(6))
    for size in (1, 3):
        parts = [terms(range(start, start + size)) for start in range(0, 6, size)]
        means = {name: sum(part[name] for part in parts) / len(parts) for name in whole}
        assert means == pytest.approx(whole, rel=1e-4)
    assert (whole["loss/augment"] > 0) == (step == 25)


def test_validation_is_at_fixed_noise_and_draws_nothing_else(task: PairTask) -> None:
    first = task.validate(CPU)
    state = torch.get_rng_state()
    torch.manual_seed(5)
    task.batch(2, range(3), CPU)
    assert task.validate(CPU) == first
    assert list(first) == [
        "loss/mean",
        *("loss/t000-199", "loss/t200-399", "loss/t400-599", "loss/t600-799", "loss/t800-999"),
    ]
    assert first["loss/mean"] == pytest.approx(np.mean(list(first.values())[1:]))
    torch.set_rng_state(state)


def test_validation_does_not_depend_on_the_seed_of_training(
    pairs: PairTensors, small_base_folder: Path, tmp_path: Path, task: PairTask
) -> None:
    other = task_of(
        pairs, small_base_folder, tmp_path, train={"batch_size": 3, "steps": 9, "seed": 1}
    )
    other._generator = task._generator  # the same weights
    assert other.validate(CPU) == task.validate(CPU)


def test_a_grid_shows_masks_images_and_samples_and_is_the_same_again(
    task: PairTask, pairs: PairTensors, tmp_path: Path
) -> None:
    said = task.sample(12, CPU)
    path = tmp_path / "samples" / "step-00000012.png"
    assert said["file"] == "samples/step-00000012.png"
    assert (said["columns"], said["steps"], said["guidance_scale"]) == (2, 2, 9.0)
    with Image.open(path) as picture:
        pixels = np.asarray(picture)
    assert pixels.shape == (3 * 66 + 2, 2 * 66 + 2, 3)
    np.testing.assert_array_equal(pixels[2:66, 2:66, 0], pairs.mask[0].numpy())
    np.testing.assert_array_equal(pixels[68:132, 68:132], pairs.image[1].permute(1, 2, 0).numpy())
    before = path.read_bytes()
    torch.manual_seed(5)
    task.sample(12, CPU)
    assert path.read_bytes() == before
