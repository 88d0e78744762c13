"""Pictures of a report: outlines, choices and remarks."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from siamese_diffusion.core.artifacts import file_sha256
from siamese_diffusion.reports import panels

SIZE = 32


def square(low: int = 8, high: int = 24) -> np.ndarray:
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[low:high, low:high] = 255
    return mask


def grey(level: int = 90) -> np.ndarray:
    return np.full((SIZE, SIZE, 3), level, np.uint8)


def save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def decoded(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for stem in ("a", "b"):
        save(tmp_path / "real/images" / f"{stem}.png", grey())
        save(tmp_path / "real/masks" / f"{stem}.png", square())
    return tmp_path / "real"


@pytest.fixture
def synthetic(tmp_path: Path, source: Path) -> Path:
    for stem in ("a", "b"):
        save(tmp_path / "synthetic/images" / f"{stem}.png", grey(150))
        save(tmp_path / "synthetic/masks" / f"{stem}.png", square())
    return tmp_path / "synthetic"


def header(source: Path) -> dict[str, object]:
    return {
        "settings": {"steps": 7, "guidance_scale": 2.0,
                     "mask_rule": {"kind": "0/255", "threshold": 127.0}},
        "origin": {"masks": str(source)},
    }  # fmt: skip


def records(source: Path) -> list[dict[str, object]]:
    return [
        {"id": stem, "index": i, "stem": stem, "source": f"masks/{stem}.png", "seed": 2**62 + i,
         "source_sha256": file_sha256(source / "masks" / f"{stem}.png"), "prompt": "p",
         "transform": None}
        for i, stem in enumerate("ab")
    ]  # fmt: skip


def test_the_outline_runs_along_the_mask_and_nowhere_else() -> None:
    image = np.full((96, 96, 3), 90, np.uint8)
    mask = np.zeros((96, 96), np.uint8)
    mask[24:72, 24:72] = 255
    drawn = np.asarray(panels.outlined(image, mask))
    assert drawn.shape == image.shape
    assert (drawn[48, 48] == 90).all()
    assert (drawn[4, 4] == 90).all()
    edge = drawn[48, 22:27].astype(int)
    assert (np.abs(edge - panels.OUTLINE_COLOUR).sum(axis=1) < 60).any()


@pytest.mark.parametrize("level", [0, 255])
def test_an_empty_or_full_mask_has_no_outline(level: int) -> None:
    mask = np.full((SIZE, SIZE), level, np.uint8)
    assert np.array_equal(np.asarray(panels.outlined(grey(), mask)), grey())


def test_evenly_keeps_both_ends_and_the_order() -> None:
    assert panels.evenly(list(range(100)), 4) == [0, 33, 66, 99]
    assert panels.evenly([1, 2], 4) == [1, 2]
    assert panels.evenly([1, 2, 3], 1) == [1]
    assert panels.evenly([], 3) == []


def test_an_item_shows_the_real_image_beside_the_synthetic_one(
    synthetic: Path, source: Path
) -> None:
    shown = panels.synthetic_items(synthetic, header(source), records(source), 24)
    assert shown.remarks == ()
    assert [tile.kind for tile in shown.items[0].tiles] == ["real", "synthetic", "synthetic"]
    facts = dict(shown.items[1].facts)
    assert facts["Seed"] == str(2**62 + 1)
    assert facts["Settings"] == "DDIM, 7 steps, eta 0; guidance 2"
    for tile in shown.items[0].tiles:
        picture = decoded(tile.uri)
        assert picture.size == (panels.THUMBNAIL, panels.THUMBNAIL)
        assert tile.alt.startswith("Real" if tile.kind == "real" else "Synthetic")
        says_so = b"Synthetic=true" in picture.info.get("comment", b"")
        assert says_so == (tile.kind == "synthetic")


def test_phantoms_are_not_called_real(synthetic: Path, source: Path) -> None:
    (source / "phantom.json").write_text("{}")
    shown = panels.synthetic_items(synthetic, header(source), records(source), 24)
    assert shown.source == "phantom"
    assert shown.items[0].tiles[0].kind == "phantom"


def test_masks_without_images_are_shown_as_masks(synthetic: Path, source: Path) -> None:
    told = records(source)
    for path in (source / "images").iterdir():
        path.unlink()
    shown = panels.synthetic_items(synthetic, header(source), told, 24)
    assert [tile.kind for tile in shown.items[0].tiles] == ["mask", "synthetic", "synthetic"]
    assert shown.remarks == (f"The masks' own images are not shown: '{source}' holds masks only.",)


def test_a_source_that_is_gone_is_named(synthetic: Path, source: Path, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    shown = panels.synthetic_items(synthetic, header(gone), records(source), 24)
    assert f"'{gone}' is not found from here" in shown.remarks[0]
    assert len(shown.items) == 2


def test_a_mask_that_changed_since_is_not_passed_off_as_the_source(
    synthetic: Path, source: Path
) -> None:
    told = records(source)
    save(source / "masks/a.png", square(2, 9))
    shown = panels.synthetic_items(synthetic, header(source), told, 24)
    assert shown.items[0].tiles[0].kind == "mask"
    assert "The mask of 'a' changed since; it is not shown." in shown.remarks


def test_a_damaged_synthetic_image_is_a_remark(synthetic: Path, source: Path) -> None:
    (synthetic / "images/a.png").write_bytes(b"no picture")
    shown = panels.synthetic_items(synthetic, header(source), records(source), 24)
    assert [item.name for item in shown.items] == ["b"]
    assert shown.remarks[0].startswith("Item a is not shown:")
    assert "images/a.png" in shown.remarks[0]


def test_transforms_are_told_in_words() -> None:
    assert panels.transform_words(None) == "no"
    assert panels.transform_words({"flip_horizontal": False, "scale": 1.0}) == "no"
    words = panels.transform_words(
        {"flip_horizontal": True, "scale": 1.25, "shift_x": -0.1, "shift_y": 0.0, "draws": 1}
    )
    assert words == "mirrored left-right, scaled x1.25, shifted -10% across, +0% down"
    unknown = {"twist": 3}
    assert panels.transform_words(unknown) == json.dumps(unknown)


@pytest.mark.parametrize("gap", [0, 2])
def test_grids_of_three_rows_are_taken_apart(tmp_path: Path, gap: int) -> None:
    tile, columns = 16, 5
    pitch = tile + gap
    sheet = np.full((3 * pitch + gap, columns * pitch + gap, 3), 255, np.uint8)
    sheet[2 * pitch + gap :] = 40  # the row of samples
    for step in range(100, 2001, 100):
        save(tmp_path / f"samples/step-{step:08d}.png", sheet)
    grids = panels.sample_grids(tmp_path, columns, 4)
    assert [row.step for row in grids.rows] == [100, 700, 1400, 2000]
    assert grids.given is not None
    assert np.asarray(decoded(grids.given.uri).convert("L"))[: 2 * pitch - 8].mean() > 250
    assert np.asarray(decoded(grids.rows[0].uri).convert("L"))[8:].mean() < 60


def test_grids_of_unknown_shape_are_shown_whole(tmp_path: Path) -> None:
    save(tmp_path / "samples/step-00000010.png", np.zeros((50, 2000, 3), np.uint8))
    (tmp_path / "samples/step-00000020.png").write_bytes(b"torn")
    grids = panels.sample_grids(tmp_path, None, 4)
    assert grids.given is None
    assert (grids.rows[0].width, grids.rows[0].height) == (panels.GRID_WIDTH, 25)
    assert "step-00000020.png" in grids.remarks[0]
