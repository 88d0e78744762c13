"""Artefacts: planted ones are listed with their reason, honest sets rarely, filters act on it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter
from typer.testing import CliRunner

from siamese_diffusion.audit.artefacts import ArtefactSettings, artefacts, statistics_of
from siamese_diffusion.cli.main import app
from siamese_diffusion.core.artifacts import read_jsonl
from siamese_diffusion.core.errors import DataError
from siamese_diffusion.data.phantom import write_phantom
from siamese_diffusion.metrics.sets import open_set

N = 40


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("artefacts")
    for seed, name in enumerate(("real", "made")):
        write_phantom(root / name, pairs=N, seed=seed, size=64)
        for path in (root / name).glob("*.txt"):
            path.unlink()
    files = sorted((root / "made/images").iterdir())
    rng = np.random.default_rng(0)
    image = Image.open(files[3]).convert("RGB")
    planted = [
        Image.new("RGB", (64, 64), (120, 80, 70)),
        Image.fromarray(rng.integers(60, 200, (64, 64, 3), dtype=np.uint8)),
        image.point(lambda v: min(255, 4 * v)),
        image.filter(ImageFilter.GaussianBlur(6)),
    ]
    for path, picture in zip(files, planted, strict=False):
        picture.save(path)
    return root


def test_planted_artefacts_are_found_and_the_others_rarely(folders: Path) -> None:
    report = artefacts(
        open_set(folders / "real"), open_set(folders / "made"), ArtefactSettings(rate=0.05)
    )
    assert (report.scores[:4] > report.limit).all()
    assert (report.scores[4:] > report.limit).mean() <= 0.2
    assert "deviations" in report.text()


def test_statistics_tell_blank_sharp_and_extreme() -> None:
    blank = np.full((32, 32, 3), 255, np.uint8)
    assert statistics_of(blank) == pytest.approx((0.0, -3.0, 1.0))
    noise = np.random.default_rng(0).integers(60, 200, (32, 32, 3), dtype=np.uint8)
    entropy, sharpness, extreme = statistics_of(noise)
    assert entropy > 3
    assert sharpness > 1
    assert extreme == 0


def test_too_few_real_images_for_the_rate_are_refused(folders: Path) -> None:
    with pytest.raises(DataError, match=r"a rate of 0.01 needs 99 real images, got 40") as caught:
        artefacts(open_set(folders / "real"), open_set(folders / "made"))
    assert caught.value.hint == "give more, or --set rate=0.0244"


def test_the_filter_leaves_listed_images_out_with_the_reason(folders: Path, tmp_path: Path) -> None:
    made, audit, out = folders / "made", tmp_path / "audit", tmp_path / "clean"
    done = CliRunner().invoke(
        app,
        ["audit", "artefacts", "--real", str(folders / "real"), "--synthetic", str(made),
         "--out", str(audit), "--set", "rate=0.05"],
    )  # fmt: skip
    assert done.exit_code == 0, done.exception
    content = json.loads((audit / "artefacts.json").read_text())
    listed = content["listed"]
    assert content["settings"] == {"rate": 0.05}
    assert content["real"]["path"] == str((folders / "real").resolve())
    assert content["real"]["split"] is None
    arguments = ["filter", str(made), "--audit", str(audit), "--keep", "clean", "--out", str(out)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.exception
    rejected = list(read_jsonl(out / "rejected.jsonl"))
    assert [line["id"] for line in rejected] == listed
    assert "that of real images (artefact score" in str(rejected[0]["rejected"])
