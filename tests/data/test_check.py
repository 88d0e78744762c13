"""The report of `siamdiff data check`."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from siamese_diffusion.data.check import check_folder


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def blob(side: int = 40, value: int = 255) -> np.ndarray:
    mask = np.zeros((side, side), np.uint8)
    mask[8:20, 8:20] = value
    return mask


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "polyp"
    rng = np.random.default_rng(0)
    for number in range(6):
        save(folder / "images" / f"p{number}.png", rng.integers(0, 255, (40, 40, 3), np.uint8))
        save(folder / "masks" / f"p{number}.png", blob())
    (folder / "train.txt").write_text("p0\np1\np2\np3\n")
    (folder / "test.txt").write_text("p4\np5\n")
    return folder


def messages(root: Path, level: str) -> str:
    return "\n".join(f.message for f in check_folder(root).findings if f.level == level)


def test_a_clean_folder_has_no_findings(root: Path) -> None:
    report = check_folder(root)
    assert report.ok
    assert report.findings == []
    assert (report.usable, report.need) == (6, "pairs")
    assert report.splits == {"test": 2, "train": 4}
    assert report.foreground == pytest.approx((0.09, 0.09, 0.09))
    text = report.text()
    for line in ("6 usable pairs", "40x40 (6); RGB (6)", "A photo of a polyp.", "can be used"):
        assert line in text


def test_the_dict_is_json_and_says_the_same(root: Path) -> None:
    shutil.rmtree(root / "masks")
    content = json.loads(json.dumps(check_folder(root).as_dict()))
    assert content["need"] == "images"
    assert content["ok"] is True


def test_every_problem_is_found_in_one_run(root: Path) -> None:
    whole = (root / "images" / "p0.png").read_bytes()
    (root / "images" / "p0.png").write_bytes(whole[:1500])  # header intact, pixels cut
    (root / "masks" / "p1.png").unlink()
    save(root / "masks" / "p2.png", blob(38))
    labels = np.maximum(blob(), np.roll(blob(value=128), 15, axis=1))
    save(root / "masks" / "p3.png", labels)
    save(root / "masks" / "p4.png", blob(value=1))
    (root / "test.txt").write_text("p4\nghost\np4\n")
    report = check_folder(root)
    text = report.text()
    assert not report.ok
    for expected in (
        "p0.png' is truncated",
        "image without mask: p1",
        "mask 'p2.png' is 38x38 but its image 'p2.png' is 40x40",
        "p3.png' has values 0, 128, 255; value 128 fills areas",
        "p4.png' has values 0 and 1",
        "'test.txt' names unknown stems: ghost",
        "'test.txt' names stems twice: p4",
        "cannot be used: 7 error(s)",
        "mend: ",
    ):
        assert expected in text


def test_empty_and_full_masks_are_counted_as_warnings(root: Path) -> None:
    save(root / "masks" / "p0.png", blob(value=0))
    save(root / "masks" / "p1.png", np.full((40, 40), 255, np.uint8))
    report = check_folder(root)
    assert report.ok
    assert "1 mask is empty: p0" in messages(root, "warning")
    assert "1 mask is all foreground: p1" in messages(root, "warning")
    assert "data.degenerate=drop" in report.text()


def test_inverted_masks_are_suspected(root: Path) -> None:
    for path in (root / "masks").iterdir():
        save(path, 255 - blob())
    assert "foreground fills 91% of the median mask" in messages(root, "warning")


def test_leaks_between_train_and_other_lists_are_warned_of(root: Path) -> None:
    shutil.copy(root / "images" / "p0.png", root / "images" / "p4.png")
    assert "1 images of 'train.txt' are also in 'test.txt'" in messages(root, "warning")
    (root / "test.txt").write_text("p1\n")
    assert "'test.txt' shares 1 stems with 'train.txt': p1" in messages(root, "warning")


def test_repeated_images_and_foreign_files_are_notes(root: Path) -> None:
    shutil.copy(root / "images" / "p0.png", root / "images" / "p1.png")
    (root / "images" / "Thumbs.db").touch()
    notes = messages(root, "note")
    assert "equal content: p0 = p1" in notes
    assert "Thumbs.db' is not a picture file and is ignored" in notes


def test_dark_sixteen_bit_and_blank_images_are_warned_of(root: Path) -> None:
    rng = np.random.default_rng(0)
    save(root / "images" / "p0.png", rng.integers(0, 3000, (40, 40)).astype(np.uint16))
    save(root / "images" / "p1.png", np.zeros((40, 40), np.uint8))
    assert "1 16-bit images use less than 1/16 of the range: p0" in messages(root, "warning")
    assert "1 images of a single colour: p1" in messages(root, "warning")


def test_flat_folders_are_told_apart(root: Path) -> None:
    assert check_folder(root / "masks").need == "masks"
    assert check_folder(root / "images").need == "images"


def test_missing_and_empty_folders_are_reported_not_raised(tmp_path: Path) -> None:
    assert "does not exist" in check_folder(tmp_path / "nowhere").text()
    report = check_folder(tmp_path)
    assert not report.ok
    assert "no folder 'images'" in report.text()


@pytest.mark.parametrize("name", ["ph2", "crackforest"])
def test_real_sets_have_no_errors(name: str) -> None:
    shared = Path(os.environ.get("SIAMDIFF_SHARED", Path(__file__).parents[2].parent / "shared"))
    if not (shared / "data" / name).is_dir():
        pytest.skip(f"no real data at {shared / 'data' / name} (set SIAMDIFF_SHARED)")
    assert check_folder(shared / "data" / name).ok
