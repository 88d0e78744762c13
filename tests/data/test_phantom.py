"""Checks the procedural phantoms: what they promise about pixels, scenes and folders."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from siamese_diffusion.core.errors import ConfigError, OutputError
from siamese_diffusion.data import phantom_scene as scene
from siamese_diffusion.data.phantom import (
    CENTRE_TABLE,
    CENTRES,
    Phantom,
    phantom_pair,
    write_phantom,
)

SIZE = 64
MIN_SHARE = 0.005


@pytest.fixture(scope="module")
def series() -> list[Phantom]:
    return [phantom_pair(3, index, size=SIZE) for index in range(40)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data") / "phantom"
    write_phantom(out, pairs=20, seed=5, size=32)
    return out


def test_pixels_depend_on_the_arguments_alone() -> None:
    first = phantom_pair(1, 2, size=SIZE, centre="b")
    phantom_pair(8, 9, size=SIZE)
    again = phantom_pair(1, 2, size=SIZE, centre="b")
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.mask, again.mask)
    for seed, index in ((2, 2), (1, 3)):
        assert np.any(phantom_pair(seed, index, size=SIZE, centre="b").image != first.image)


def test_shapes_values_and_shares(series: list[Phantom]) -> None:
    for index, pair in enumerate(series):
        assert pair.centre == CENTRES[index % 5]
        assert pair.image.shape == (SIZE, SIZE, 3)
        assert pair.image.dtype == np.uint8
        assert pair.mask.shape == (SIZE, SIZE)
        assert pair.mask.dtype == np.uint8
        assert set(np.unique(pair.mask)) == {0, 255}
        assert MIN_SHARE <= np.mean(pair.mask > 0) <= 0.5
        assert pair.lesions in (1, 2)


@pytest.mark.parametrize("index", range(5))
def test_same_scene_at_every_size(index: int) -> None:
    small, large = phantom_pair(4, index, size=128), phantom_pair(4, index, size=256)
    a = small.mask > 0
    b = large.mask.reshape(128, 2, 128, 2).mean(axis=(1, 3)) > 127
    assert np.sum(a & b) / np.sum(a | b) > 0.9
    shrunk = large.image.reshape(128, 2, 128, 2, 3).mean(axis=(1, 3))
    assert np.sqrt(np.mean((shrunk - small.image) ** 2)) < 8.0


def test_frame_is_black_and_never_lesion(series: list[Phantom]) -> None:
    x, y = scene.grid(SIZE)
    for pair in series:
        frame = scene.frame_distance(CENTRE_TABLE[pair.centre], x, y) < -2.0 / SIZE
        assert frame.any()
        assert not pair.mask[frame].any()
        assert pair.image[frame].mean() < 12
        assert pair.image[~frame].mean() > 40


def test_centres_differ_in_colour() -> None:
    means = {}
    for centre in CENTRES:
        pairs = [phantom_pair(6, index, size=SIZE, centre=centre) for index in range(6)]
        seen = np.concatenate([p.image[(p.mask == 0) & (p.image.max(axis=2) > 40)] for p in pairs])
        means[centre] = seen.mean(axis=0)
    for one in CENTRES:
        for other in CENTRES:
            if one < other:
                assert np.linalg.norm(means[one] - means[other]) > 12, (one, other)


def test_centres_differ_in_lesion_size() -> None:
    share = {
        centre: np.mean([phantom_pair(7, i, size=32, centre=centre).mask > 0 for i in range(12)])
        for centre in ("b", "d")
    }
    assert share["d"] > 2.0 * share["b"]


def test_lesion_differs_from_its_surroundings(series: list[Phantom]) -> None:
    contrasts = []
    for pair in series:
        mask = pair.mask > 0
        ring = ndimage.binary_dilation(mask, iterations=6) & ~ndimage.binary_dilation(mask)
        ring &= pair.image.max(axis=2) > 20
        inside = pair.image[mask].astype(float)
        outside = pair.image[ring].astype(float)
        colour = np.linalg.norm(inside.mean(axis=0) - outside.mean(axis=0))
        contrasts.append(colour + abs(inside.std() - outside.std()))
    # A few lesions share the mean colour of the wall and show by their shading alone.
    assert np.median(contrasts) > 18
    assert np.percentile(contrasts, 10) > 6


@pytest.mark.parametrize(
    ("seed", "index", "size", "centre"),
    [(-1, 0, 64, None), (0, -1, 64, None), (0, 0, 8, None), (0, 0, 64, "z")],
)
def test_bad_arguments(seed: int, index: int, size: int, centre: str | None) -> None:
    with pytest.raises(ConfigError):
        phantom_pair(seed, index, size=size, centre=centre)


def _read(path: Path) -> list[str]:
    return path.read_text().splitlines()


def test_folder_layout(folder: Path) -> None:
    stems = sorted(path.stem for path in (folder / "images").iterdir())
    assert stems == sorted(f"phantom_{CENTRES[i % 5]}_{i:05d}" for i in range(20))
    assert stems == sorted(path.stem for path in (folder / "masks").iterdir())
    assert (folder / "prompt.txt").read_text() == "A photo of a polyp.\n"
    assert json.loads((folder / "phantom.json").read_text())["pairs"] == 20
    assert not list(folder.rglob(".*"))
    with (folder / "metadata.csv").open(newline="") as stream:
        rows = {row["stem"]: row for row in csv.DictReader(stream)}
    assert sorted(rows) == stems
    pair = phantom_pair(5, 7, size=32)
    stem = f"phantom_{pair.centre}_00007"
    np.testing.assert_array_equal(np.asarray(Image.open(folder / f"images/{stem}.png")), pair.image)
    np.testing.assert_array_equal(np.asarray(Image.open(folder / f"masks/{stem}.png")), pair.mask)
    assert float(rows[stem]["foreground_share"]) == pytest.approx(np.mean(pair.mask > 0), abs=1e-6)


def test_splits_are_disjoint_complete_and_stratified(folder: Path) -> None:
    splits = {name: _read(folder / f"{name}.txt") for name in ("train", "val", "test")}
    assert [len(splits[name]) for name in ("train", "val", "test")] == [14, 3, 3]
    dealt = [stem for members in splits.values() for stem in members]
    assert sorted(dealt) == sorted(path.stem for path in (folder / "images").iterdir())
    by_centre = [_read(folder / f"centre-{centre}.txt") for centre in CENTRES]
    assert sorted(stem for members in by_centre for stem in members) == sorted(dealt)
    for members in by_centre:
        assert 2 <= len(set(members) & set(splits["train"])) <= 4


def test_an_interrupted_folder_is_completed(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []

    def stop(done: int, total: int) -> None:
        calls.append((done, total))
        if done == 2 and len(calls) == 2:
            raise KeyboardInterrupt

    out = tmp_path / "new" / "set"
    with pytest.raises(KeyboardInterrupt):
        write_phantom(out, pairs=4, size=32, centre="c", progress=stop)
    kept = out / "images" / "phantom_c_00000.png"
    stamp = kept.stat().st_mtime_ns
    write_phantom(out, pairs=4, size=32, centre="c", progress=stop)
    assert kept.stat().st_mtime_ns == stamp
    assert calls[-1] == (4, 4)
    assert len(_read(out / "centre-c.txt")) == 4


def test_foreign_folders_are_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match="not empty"):
        write_phantom(tmp_path, pairs=1, size=32)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    with pytest.raises(OutputError, match="other arguments") as caught:
        write_phantom(folder, pairs=21, seed=5, size=32)
    assert caught.value.hint
    with pytest.raises(OutputError, match="not a folder"):
        write_phantom(tmp_path / "thesis.txt", pairs=1, size=32)
    with pytest.raises(ConfigError):
        write_phantom(tmp_path / "none", pairs=0)
    assert not (tmp_path / "none").exists()
