"""Sampling in bf16: close to fp32, recorded, and absent from records of fp32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from reference.literal import disturb
from sampling.painting import SIZE, PaintingPipeline, write_masks
from siamese_diffusion.core.artifacts import read_json
from siamese_diffusion.core.errors import ConfigError, OutputError
from siamese_diffusion.core.folders import RunPaths, SyntheticPaths
from siamese_diffusion.data.pairs import PairFolder
from siamese_diffusion.generators.run_folder import COMPLETE, LoadedRun, RunInfo
from siamese_diffusion.generators.settings import SiameseFitSettings
from siamese_diffusion.generators.siamese import Siamese
from siamese_diffusion.models.base import load_base
from siamese_diffusion.sampling.bulk import sample, sample_with
from siamese_diffusion.sampling.pipeline import SiameseDiffusionPipeline
from siamese_diffusion.sampling.plan import make_plan
from siamese_diffusion.sampling.settings import SampleSettings

CPU = torch.device("cpu")
# bf16 keeps eight bits of each number. Ten guided steps of a network whose every layer rounds give
# a mean error below one grey level here; twice that is allowed.
MEAN_LEVELS = 2.0


def pipeline(dtype: torch.dtype) -> SiameseDiffusionPipeline:
    """The embedded base under a control branch that says something."""
    base = load_base("tiny")
    generator = Siamese.build(SiameseFitSettings(), base)
    disturb(generator.network.control, scale=0.01)
    generator.objective.requires_grad_(False).eval()
    info = RunInfo(
        generator="siamese",
        state=COMPLETE,
        base={},
        model_sha256="0" * 64,
        step=0,
        max_steps=0,
        size=64,
        prompt="A photo of a polyp.",
        data={},
    )
    run = LoadedRun(RunPaths(Path("none")), info, SiameseFitSettings(), base, generator)
    return SiameseDiffusionPipeline(run, device=CPU, dtype=dtype)


def test_an_image_in_bf16_is_that_of_fp32_within_the_stated_error() -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[16:40, 8:48] = 255
    fp32, bf16, other = (
        np.asarray(pipeline(dtype)([mask], [seed], steps=10, guidance_scale=2.0)[0]).astype(int)
        for dtype, seed in ((torch.float32, 1), (torch.bfloat16, 1), (torch.float32, 2))
    )
    error = np.abs(fp32 - bf16).mean()
    assert 0 < error < MEAN_LEVELS
    assert np.abs(fp32 - other).mean() > 5 * MEAN_LEVELS  # what another seed changes


def test_bf16_is_recorded_and_fp32_leaves_plans_as_they_were(tmp_path: Path) -> None:
    folder = PairFolder.open(write_masks(tmp_path / "masks", 2), need="masks")
    plans = [
        make_plan(folder, settings, size=SIZE, model_sha256="m", prompt="p")
        for settings in (SampleSettings(), SampleSettings(precision="bf16"))
    ]
    assert "precision" not in plans[0].identity
    assert plans[1].identity["precision"] == "bf16"
    for before, after in zip(plans[0].items, plans[1].items, strict=True):
        assert before.content != after.content
        assert before.seed == after.seed


def test_a_set_in_fp32_is_not_continued_in_bf16(tmp_path: Path) -> None:
    masks, out = write_masks(tmp_path / "masks", 2), tmp_path / "out"
    sample_with(PaintingPipeline(), masks, out, progress=False)
    assert "precision" not in str(read_json(SyntheticPaths(out).plan_header))
    with pytest.raises(OutputError, match="precision"):
        sample_with(
            PaintingPipeline(),
            masks,
            out,
            settings=SampleSettings(precision="bf16"),
            progress=False,
        )


def test_an_unknown_precision_is_refused_before_the_run_is_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"precision.*fp8"):
        sample("no-run", tmp_path, tmp_path / "out", precision="fp8")  # type: ignore[arg-type]
