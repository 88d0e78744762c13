"""The figure and the verb behind Fig. 4."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from metrics.pictures import write_images
from siamese_diffusion.cli.main import app
from siamese_diffusion.core.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tsne")
    write_images(root / "real", 24, seed=0)
    write_images(root / "alike", 14, seed=1)
    write_images(root / "bright", 14, seed=2, tint=90)
    return root


def run(folders: Path, out: Path, *more: str) -> tuple[int, str, BaseException | None]:
    arguments = ["plot", "tsne", "--real", str(folders / "real"), "--out", str(out),
                 "--set", "fidelity=random", "--set", "size=48", "--set", "perplexity=5",
                 "--set", "iterations=50", "--cache", str(folders / "cache"), *more]  # fmt: skip
    done = CliRunner().invoke(app, arguments)
    return done.exit_code, done.stdout, done.exception


def test_figure_has_a_panel_of_real_against_real_and_one_a_method(
    folders: Path, tmp_path: Path
) -> None:
    out = tmp_path / "figure.png"
    code, text, problem = run(
        folders, out, "--synthetic", str(folders / "alike"),
        "--synthetic", f"ours={folders / 'bright'}",
    )  # fmt: skip
    assert code == 0, problem
    assert [line.split(":")[0] for line in text.splitlines()[:3]] == ["real", "alike", "ours"]
    picture = Image.open(out)
    assert picture.width > 2 * picture.height
    numbers = json.loads((tmp_path / "figure.json").read_text())
    assert numbers["points"] == 12  # half of the real ones
    assert numbers["mixing"]["ours"] < numbers["mixing"]["alike"]
    assert numbers["expected"] == pytest.approx(12 / 23)
    assert numbers["extractor"] == "random-64"
    assert [len(part) for part in numbers["plane"]] == [12] * 4
    assert all(len(point) == 2 for part in numbers["plane"] for point in part)


def test_wrong_formats_names_and_sizes_are_refused(folders: Path, tmp_path: Path) -> None:
    alike = str(folders / "alike")
    _, _, problem = run(folders, tmp_path / "a.gif", "--synthetic", alike)
    assert isinstance(problem, ConfigError)
    assert "ends in '.gif'" in problem.message
    _, _, problem = run(folders, tmp_path / "a.png", "--synthetic", alike, "--synthetic", alike)
    assert isinstance(problem, ConfigError)
    assert "methods are called alike, alike" in problem.message
    few = str(write_images(tmp_path / "few", 4))
    _, _, problem = run(folders, tmp_path / "a.png", "--synthetic", few)
    assert isinstance(problem, DataError)
    assert "only 4 images of each set" in problem.message
    _, _, problem = run(folders, tmp_path / "a.png", "--synthetic", alike, "--set", "perplexity=20")
    assert isinstance(problem, ConfigError)
    assert "perplexity 20 is too large for 36 images" in problem.message
