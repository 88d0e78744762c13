"""A set as `siamdiff sample` leaves it goes through score and audits without any further word."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sampling.painting import PaintingPipeline
from siamese_diffusion.cli.main import app
from siamese_diffusion.sampling.bulk import sample_with
from siamese_diffusion.sampling.settings import SampleSettings

COMMON = ["--set", "fidelity=random", "--set", "similarity=random", "--set", "size=32",
          "--set", "bootstrap=5"]  # fmt: skip


@pytest.fixture
def synthetic(phantoms: Path, tmp_path: Path) -> Path:
    """Two folds of every training mask of the phantoms."""
    out = tmp_path / "synthetic"
    settings = SampleSettings(folds=2)
    sample_with(PaintingPipeline(), phantoms, out, split="train", settings=settings, progress=False)
    return out


def test_protocol_paper_needs_no_more_than_the_two_folders(
    phantoms: Path, synthetic: Path, tmp_path: Path
) -> None:
    out = tmp_path / "score.json"
    done = CliRunner().invoke(
        app,
        ["score", "--real", str(phantoms), "--synthetic", str(synthetic), "--protocol", "paper",
         "--metrics", "kid,clip-i-paired,prdc", "--cache", str(tmp_path / "c"), "--out", str(out),
         *COMMON],
    )  # fmt: skip
    assert done.exit_code == 0, done.exception
    content = json.loads(out.read_text())
    n = content["real"]["n"]
    assert content["synthetic"]["n"] == n
    assert len(list((synthetic / "images").iterdir())) == 2 * n
    assert content["real"]["split"] == "train"
    paired = next(v for v in content["values"] if v["name"].endswith("paired"))
    assert paired["passport"]["protocol"] == "paper"
    assert not any("manifest" in warning for warning in content["warnings"])


def test_audits_know_the_mask_of_each_image(
    phantoms: Path, synthetic: Path, tmp_path: Path
) -> None:
    done = CliRunner().invoke(
        app,
        ["audit", "alignment", "--real", str(phantoms), "--synthetic", str(synthetic),
         "--out", str(tmp_path / "audit"), "--set", "steps=2", "--set", "size=32",
         "--set", "folds=2"],
    )  # fmt: skip
    assert done.exit_code == 0, done.exception
    content = json.loads((tmp_path / "audit/alignment.json").read_text())
    assert {pair["judges"] for pair in content["pairs"]} == {1}
    done = CliRunner().invoke(
        app,
        ["filter", str(synthetic), "--audit", str(tmp_path / "audit"), "--keep", "dice=0",
         "--out", str(tmp_path / "clean")],
    )  # fmt: skip
    assert done.exit_code == 0, done.exception
    assert f"{2 * content['n_real']} kept, 0 rejected" in done.stdout
