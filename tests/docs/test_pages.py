"""What the pages show works as shown."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
import yaml

from siamese_diffusion.core.config import build
from siamese_diffusion.core.registry import Registry
from siamese_diffusion.generators.settings import (
    PRESETS,
    FitSettings,
    PretrainSettings,
    SiameseFitSettings,
)
from siamese_diffusion.sampling.bulk import sample
from siamese_diffusion.sampling.pipeline import SiameseDiffusionPipeline
from siamese_diffusion.segmentation import SEGMENTERS
from siamese_diffusion.segmentation.evaluation import evaluate
from siamese_diffusion.segmentation.fitting import fit_segmenter

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
SMALL = [
    "data.size=64",
    "train.steps=2",
    "train.batch_size=4",
    "train.tensorboard=false",
    "preview.pairs=1",
    "preview.steps=1",
    "preview.validation_pairs=1",
]


def snippets(page: Path, heading: str) -> list[str]:
    """Fenced blocks of a page that begin with this line after the backticks."""
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{re.escape(heading)}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_that_exist(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            file = page.parent / target.partition("#")[0]
            assert file.exists(), f"{page.name} links to {target}"


def test_the_map_of_the_readme_names_folders_that_exist() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Map")[2]
    folders = re.findall(r"`(\w+)/`", text)
    assert folders
    for folder in folders:
        assert (ROOT / "src" / "siamese_diffusion" / folder).is_dir(), folder


def test_the_segmenter_of_the_page_is_complete(
    phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (code,) = snippets(ROOT / "docs" / "extending.md", "python run=segmenter")
    (tmp_path / "page_segmenter.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    table = {name: SEGMENTERS.target(name) for name in SEGMENTERS}
    with_it = Registry("segmenter", {**table, "linear": "page_segmenter:Linear"})
    monkeypatch.setattr("siamese_diffusion.segmentation.run_folder.SEGMENTERS", with_it)
    run = fit_segmenter(
        "linear",
        phantoms,
        tmp_path / "run",
        overrides=["inputs.size=64", "train.steps=2", "train.batch_size=4"],
        device="cpu",
        quiet=True,
    )
    result = evaluate(run, phantoms, splits=["test"], resamples=0, device="cpu", quiet=True)
    assert result["model"] == "linear"


@pytest.mark.parametrize(
    ("heading", "settings"),
    [("yaml run=fit", SiameseFitSettings), ("yaml run=pretrain", PretrainSettings)],
)
def test_settings_of_the_page_are_valid(
    heading: str, settings: type[FitSettings] | type[PretrainSettings]
) -> None:
    found = snippets(ROOT / "docs" / "extending.md", heading)
    assert found
    for text in found:
        assert build(settings, yaml.safe_load(text)) != settings()


def test_the_python_of_the_readme_runs(
    phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (code,) = snippets(ROOT / "README.md", "python")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "DATA").symlink_to(phantoms)
    first = sorted((phantoms / "masks").iterdir())[0]
    (tmp_path / "mask.png").write_bytes(first.read_bytes())
    small = build(SiameseFitSettings, PRESETS["small"]).model_dump(mode="json")
    small["data"]["size"] = 64
    small["train"] |= {"steps": 2, "batch_size": 2, "warmup_steps": 0, "tensorboard": False}
    small["preview"] |= {"steps": 1, "pairs": 1, "validation_pairs": 1}
    monkeypatch.setitem(PRESETS, "small", small)
    for inner in (sample, SiameseDiffusionPipeline.__call__):
        # the snippet keeps the paper's 50 steps
        plain = inspect.unwrap(inner)
        monkeypatch.setattr(plain, "__kwdefaults__", {**plain.__kwdefaults__, "steps": 1})
    names: dict[str, object] = {}
    exec(compile(code, str(ROOT / "README.md"), "exec"), names)
    images = names["images"]
    assert isinstance(images, list) and images[0].size == (64, 64)
    n = len(list((phantoms / "masks").iterdir()))
    assert len(list((tmp_path / "SYNTH" / "images").iterdir())) == 2 * n
