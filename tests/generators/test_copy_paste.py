"""Copy-Paste: the real set once more, marked as what it is."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from siamese_diffusion.core.artifacts import file_sha256
from siamese_diffusion.core.errors import ConfigError, DataError, OutputError
from siamese_diffusion.data.pairs import PairFolder
from siamese_diffusion.generators.fitting import fit
from siamese_diffusion.sampling.bulk import sample


@pytest.fixture
def run(phantoms: Path, tmp_path: Path) -> Path:
    overrides = ["data.size=48"]
    return fit(phantoms, tmp_path / "run", generator="copy-paste", overrides=overrides, quiet=True)


def copied(run: Path, data: Path, out: Path, **more: object) -> Path:
    sample(run, data, out, split="val", images=data, progress=False, **more)  # type: ignore[arg-type]
    return out


def test_fitting_trains_nothing_and_is_complete_at_once(run: Path) -> None:
    record = json.loads((run / "run.json").read_text())
    assert record["state"] == "complete" and record["step"] == record["max_steps"] == 0
    assert record["base"]["kind"] == "pixels"
    assert not (run / "checkpoints").exists()


def test_images_and_masks_are_the_real_ones_at_the_common_size(
    run: Path, phantoms: Path, tmp_path: Path
) -> None:
    made = PairFolder.open(copied(run, phantoms, tmp_path / "set"))
    real = PairFolder.open(phantoms, split="val")
    assert made.stems == real.stems
    for row in range(len(real)):
        assert np.array_equal(made.image(row), real.image(row, 48))
        assert np.array_equal(made.mask(row), real.mask(row, 48))


def test_every_item_names_its_source_and_is_marked_as_a_copy(
    run: Path, phantoms: Path, tmp_path: Path
) -> None:
    out = copied(run, phantoms, tmp_path / "set")
    lines = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
    for line in lines:
        assert line["nature"] == "copy of a real image"
        assert line["reference_sha256"] == file_sha256(phantoms / line["reference"])
        with Image.open(out / "images" / f"{line['id']}.png") as picture:
            text = picture.info
        assert text["Synthetic"] == "false" and text["Nature"] == "copy of a real image"


def test_two_folds_are_two_copies(run: Path, phantoms: Path, tmp_path: Path) -> None:
    made = PairFolder.open(copied(run, phantoms, tmp_path / "set", folds=2))
    twin = made.stems.index(f"{made.stems[0]}_f1")
    assert np.array_equal(made.image(0), made.image(twin))


def test_transformed_masks_are_refused_since_images_would_not_fit(
    run: Path, phantoms: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="recipe 'random' changes masks"):
        copied(run, phantoms, tmp_path / "set", recipe="random")


def test_a_mask_without_its_image_is_named(run: Path, phantoms: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    names = PairFolder.open(phantoms, split="val")
    for pair in names.pairs[1:]:
        assert pair.image is not None
        (images / pair.image.name).write_bytes(pair.image.read_bytes())
    missing = names.stems[0]
    with pytest.raises(DataError, match=rf"1 of \d+ masks have no image in .*'{missing}'"):
        sample(run, phantoms, tmp_path / "set", split="val", images=images, progress=False)


def test_an_image_that_changed_is_another_plan(
    run: Path, phantoms: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    images = tmp_path / "images"
    images.mkdir()
    for pair in PairFolder.open(phantoms, split="val").pairs:
        assert pair.image is not None
        (images / pair.image.name).write_bytes(pair.image.read_bytes())
    out = tmp_path / "set"
    sample(run, phantoms, out, split="val", images=images, progress=False)
    first = sorted(images.iterdir())[0]
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(first)
    with pytest.raises(OutputError, match=r"holds another plan .*images changed"):
        sample(run, phantoms, out, split="val", images=images, progress=False)
