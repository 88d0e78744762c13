"""Samplers beside the paper's: what they cost, what is recorded, what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sampling.painting import SIZE, PaintingPipeline, write_masks
from sampling.test_precision import pipeline
from siamese_diffusion.core.artifacts import read_json
from siamese_diffusion.core.errors import ConfigError, OutputError
from siamese_diffusion.core.folders import SyntheticPaths
from siamese_diffusion.data.pairs import PairFolder
from siamese_diffusion.diffusion.sampler import Sampler
from siamese_diffusion.generators.base import require_sampler
from siamese_diffusion.generators.run_folder import generator_class
from siamese_diffusion.models.siamese import SiameseNetwork
from siamese_diffusion.sampling.bulk import sample, sample_with
from siamese_diffusion.sampling.plan import make_plan
from siamese_diffusion.sampling.settings import SampleSettings


def test_guidance_outside_its_interval_halves_the_batch_of_a_step() -> None:
    made = pipeline(torch.float32)
    network = made._loaded.generator.objective.network
    assert isinstance(network, SiameseNetwork)
    rows: list[int] = []
    network.decoder.head.register_forward_hook(lambda _module, _given, out: rows.append(len(out)))
    mask = np.zeros((64, 64), np.uint8)
    chosen = Sampler(guidance_interval=(100, 600))
    images = {}
    for name, sampler in (("all", Sampler(guidance_interval=(0, 999))), ("some", chosen)):
        images[name] = np.asarray(made([mask], [1], steps=4, sampler=sampler)[0])
    assert rows == [2, 2, 2, 2, 1, 2, 2, 1]  # at timesteps 751, 501, 251, 1
    assert np.array_equal(images["all"], np.asarray(made([mask], [1], steps=4)[0]))
    assert not np.array_equal(images["all"], images["some"])


def test_an_interval_without_a_step_is_the_prompt_alone() -> None:
    made, mask = pipeline(torch.float32), np.zeros((64, 64), np.uint8)
    outside = made([mask], [1], steps=4, sampler=Sampler(guidance_interval=(2, 3)))[0]
    alone = made([mask], [1], steps=4, guidance_scale=1.0)[0]
    assert np.array_equal(np.asarray(outside), np.asarray(alone))


def test_dpm_solver_is_deterministic_and_another_way() -> None:
    made, mask = pipeline(torch.float32), np.zeros((64, 64), np.uint8)
    sampler = Sampler("dpm-solver++")
    first, again = (np.asarray(made([mask], [1], steps=5, sampler=sampler)[0]) for _ in range(2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, np.asarray(made([mask], [1], steps=5)[0]))


CHANGES: dict[str, dict[str, object]] = {
    "sampler": {"sampler": "dpm-solver++"},
    "guidance_interval": {"guidance_interval": (200, 800)},
}


@pytest.mark.parametrize("name", CHANGES)
def test_another_sampler_is_part_of_the_set_and_the_papers_leaves_no_trace(
    name: str, tmp_path: Path
) -> None:
    masks, out = write_masks(tmp_path / "masks", 2), tmp_path / "out"
    folder = PairFolder.open(masks, need="masks")
    settings = SampleSettings.model_validate(CHANGES[name])
    plain, other = (
        make_plan(folder, chosen, size=SIZE, model_sha256="m", prompt="p")
        for chosen in (SampleSettings(), settings)
    )
    assert not CHANGES.keys() & plain.identity.keys()
    assert name in other.identity
    assert all(a.content != b.content for a, b in zip(plain.items, other.items, strict=True))
    sample_with(PaintingPipeline(), masks, out, progress=False)
    assert name not in str(read_json(SyntheticPaths(out).plan_header)["settings"])
    with pytest.raises(OutputError, match=name):
        sample_with(PaintingPipeline(), masks, out, settings=settings, progress=False)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sampler": "euler"}, r"sampler.*euler"),
        ({"guidance_interval": (800, 200)}, r"800:200 is impossible; it must be LOW:HIGH"),
        ({"guidance_interval": (0, 1000)}, r"0:1000 is impossible"),
        ({"sampler": "dpm-solver++", "steps": 1000}, r"steps 1000 are too many"),
    ],
)
def test_impossible_samplers_are_refused_before_the_run_is_read(
    settings: dict[str, object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        sample("no-run", tmp_path, tmp_path / "out", **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["arsdm", "copy-paste"])
def test_generators_that_sample_in_their_own_way_refuse_another(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"'{name}' samples in a way of its own.*dpm-solver"):
        require_sampler(generator_class(name), Sampler("dpm-solver++"))
    require_sampler(generator_class(name), Sampler())
    require_sampler(generator_class("siamese"), Sampler("dpm-solver++"))
