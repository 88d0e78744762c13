"""ArSDM's refinement: the segmenter, where gradient flows, and where the release has none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from reference.literal import disturb
from siamese_diffusion.core.config import build
from siamese_diffusion.generators import arsdm
from siamese_diffusion.generators.arsdm import ArSDM, ArSDMSettings
from siamese_diffusion.generators.fitting import fit
from siamese_diffusion.generators.refinement import frozen_segmenter, refinement_loss
from siamese_diffusion.generators.tensors import PairTensors
from siamese_diffusion.models.small_unet import SmallUNet

MODEL = {
    "width": 32,
    "multipliers": [1, 1],
    "blocks": 1,
    "attention_factors": [2],
    "head_channels": 16,
}


def discs(n: int = 16, size: int = 64) -> PairTensors:
    """Bright discs on a dark ground."""
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    masks, images = [], []
    for i in range(n):
        middle, radius = size * (i + 5) // 26, size * (2 + i % 3) // 16
        inside = (y - middle).square() + (x - size + middle).square() < radius**2
        masks.append(inside.to(torch.uint8) * 255)
        images.append((inside * 150 + 40).to(torch.uint8).expand(3, -1, -1))
    empty = torch.empty(0)
    return PairTensors(
        torch.stack(images), torch.stack(masks), empty, empty, torch.zeros(1, 1, 1), torch.zeros(n)
    )


def made(segmenter: SmallUNet | None, **settings: object) -> ArSDM:
    content = {"data": {"size": 32}, "model": MODEL, "train": {"steps": 10}, **settings}
    resolved = build(ArSDMSettings, content)
    generator = ArSDM.build(resolved, ArSDM.own_space(resolved))
    disturb(generator.network)
    if segmenter is not None:
        generator.objective.segmenter = segmenter
    return generator


def batch() -> dict[str, Tensor]:
    pairs = discs(2, 32)
    mask = (pairs.mask > 127).float().unsqueeze(1).expand(-1, 3, -1, -1).contiguous()
    draws = torch.Generator().manual_seed(0)
    return {
        "z0": pairs.image.float() / 127.5 - 1,
        "eps": torch.randn(2, 3, 32, 32, generator=draws),
        "t": torch.tensor([150, 700]),
        "alpha_bar_t": torch.tensor([0.9, 0.1]),
        "c_text": torch.zeros(2, 1, 1),
        "mask": mask,
    }


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> SmallUNet:
    return frozen_segmenter(discs(), seed=0, cache=tmp_path_factory.mktemp("cache"), steps=40)


def test_the_segmenter_finds_what_it_was_shown_and_is_frozen(segmenter: SmallUNet) -> None:
    pairs = discs()
    images, masks = pairs.image.float() / 127.5 - 1, (pairs.mask > 127).float().unsqueeze(1)
    own = refinement_loss(segmenter, images, masks.expand(-1, 3, -1, -1))
    others = refinement_loss(segmenter, images, masks.roll(8, 0).expand(-1, 3, -1, -1))
    assert float(own.mean()) < 0.8 * float(others.mean())
    assert not any(p.requires_grad for p in segmenter.parameters())


def test_a_second_start_loads_the_same_segmenter(tmp_path: Path) -> None:
    first = frozen_segmenter(discs(), seed=3, cache=tmp_path, steps=2)
    (file,) = tmp_path.iterdir()
    before = file.stat().st_mtime_ns
    again = frozen_segmenter(discs(), seed=3, cache=tmp_path, steps=2)
    assert file.stat().st_mtime_ns == before
    assert all(
        torch.equal(a, b)
        for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True)
    )
    frozen_segmenter(discs(), seed=4, cache=tmp_path, steps=2)
    assert len(list(tmp_path.iterdir())) == 2


def test_x0_sends_gradient_through_the_estimate_of_low_timesteps_alone(
    segmenter: SmallUNet,
) -> None:
    generator, given = made(segmenter, refine="x0"), batch()
    loss = generator.objective(9, given)["loss/refine"]
    torch.autograd.backward(loss)
    assert any(p.grad is not None and bool(p.grad.any()) for p in generator.network.parameters())
    given["z0"] = given["z0"].clone()
    given["z0"][1] = 0  # t = 700 takes no part
    with torch.no_grad():
        torch.testing.assert_close(generator.objective(9, given)["loss/refine"], loss.detach())
    given["t"] = torch.tensor([200, 999])
    assert float(generator.objective(9, given)["loss/refine"]) == 0


def test_as_released_the_refinement_is_a_constant_and_changes_no_gradient(
    segmenter: SmallUNet,
) -> None:
    given = batch()
    grads: list[list[Tensor | None]] = []
    for refine in ("off", "official"):
        generator = made(segmenter, refine=refine, refine_sampling_steps=2)
        terms = generator.objective(9, given)
        assert ("loss/refine" in terms) == (refine == "official")
        if refine == "official":
            assert not terms["loss/refine"].requires_grad and float(terms["loss/refine"]) > 0
        torch.autograd.backward(torch.stack(list(terms.values())).sum())
        grads.append([p.grad for p in generator.network.parameters()])
    assert all(
        a is not None and b is not None and torch.equal(a, b) for a, b in zip(*grads, strict=True)
    )


def test_it_starts_with_the_last_steps(segmenter: SmallUNet) -> None:
    generator = made(segmenter, refine="x0", refine_last_steps=3)
    found = [k for k in (0, 6, 7, 9) if "loss/refine" in generator.objective(k, batch())]
    assert found == [7, 9]


def test_a_fit_trains_the_segmenter_first_and_logs_the_term(
    phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def few_steps(pairs: PairTensors, *, seed: int, cache: Path) -> SmallUNet:
        return frozen_segmenter(pairs, seed=seed, cache=cache, steps=2)

    monkeypatch.setattr(arsdm, "frozen_segmenter", few_steps)
    overrides = ["data.size=32", "train.steps=2", "train.batch_size=2", "train.log_every=1"]
    overrides += ["train.sample_every=0", "train.validate_every=0", "train.tensorboard=false"]
    overrides += [f"model.{key}={value}" for key, value in MODEL.items()]
    overrides += ["refine=x0", "refine_last_steps=1", "refine_below_timestep=1000"]
    run = fit(
        phantoms,
        tmp_path / "run",
        generator="arsdm",
        overrides=overrides,
        device="cpu",
        quiet=True,
    )
    events = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    steps = [e for e in events if e["event"] == "train"]
    assert "loss/refine" not in steps[0] and steps[1]["loss/refine"] > 0
    assert not (run / "model" / "segmenter.safetensors").exists()
