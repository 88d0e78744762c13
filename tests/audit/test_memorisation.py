"""Planted copies are found, honest sets are not accused more often than stated."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps
from typer.testing import CliRunner

from siamese_diffusion.audit.calibration import VERDICT_RATE
from siamese_diffusion.audit.descriptors import turned
from siamese_diffusion.audit.memorisation import (
    MemorisationReport,
    MemorisationSettings,
    memorisation,
)
from siamese_diffusion.audit.search import Rows, closer_to_train, closest
from siamese_diffusion.cli.main import app
from siamese_diffusion.core.errors import DataError
from siamese_diffusion.data.phantom import write_phantom
from siamese_diffusion.metrics.sets import ImageSet, open_set

N = 40  # the least hold-out for the rate is 39
SETTINGS = MemorisationSettings(rate=0.025, candidates=2)


def recompressed(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=30)
    return Image.open(io.BytesIO(buffer.getvalue()))


def tinted(image: Image.Image) -> Image.Image:
    r, g, b = image.split()
    shifted = [r.point(lambda v: min(255, int(v * 1.1) + 10)), g, b.point(lambda v: int(v * 0.8))]
    return ImageEnhance.Brightness(Image.merge("RGB", shifted)).enhance(0.85)


def cropped(image: Image.Image) -> Image.Image:
    side = image.width
    box = (round(0.03 * side), round(0.12 * side), round(0.88 * side), round(0.97 * side))
    return image.crop(box).resize(image.size, Image.Resampling.BICUBIC)


PLANTED: dict[str, Callable[[Image.Image], Image.Image]] = {
    "plain": lambda image: image,
    "mirrored": ImageOps.mirror,
    "turned": lambda image: image.rotate(90),
    "recompressed": recompressed,
    "tinted": tinted,
    "cropped": cropped,
    "mirrored_and_cropped": lambda image: cropped(ImageOps.flip(image)),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Phantoms: training, hold-out and honest sets, and the honest one with planted copies."""
    root = tmp_path_factory.mktemp("memory")
    for seed, name in enumerate(("train", "holdout", "honest")):
        write_phantom(root / name, pairs=N, seed=seed, size=64)
    (root / "train/train.txt").unlink()  # all of the folder is meant
    shutil.copytree(root / "honest", root / "planted")
    sources = sorted((root / "train/images").iterdir())
    for number, (kind, alter) in enumerate(PLANTED.items()):
        image = Image.open(sources[3 * number]).convert("RGB")
        alter(image).convert("RGB").save(root / f"planted/images/copy_{kind}.png")
    return root


def sets(folders: Path, *names: str) -> list[ImageSet]:
    return [open_set(folders / name) for name in names]


@pytest.fixture(scope="module")
def found(folders: Path) -> MemorisationReport:
    train, planted, holdout = sets(folders, "train", "planted", "holdout")
    return memorisation(train, planted, holdout=holdout, settings=SETTINGS)


@pytest.mark.parametrize("kind", list(PLANTED))
def test_planted_copies_are_found_with_their_source(
    folders: Path, found: MemorisationReport, kind: str
) -> None:
    sources = sorted((folders / "train/images").iterdir())
    expected = sources[3 * list(PLANTED).index(kind)].stem
    near = {copy.stem: copy for copy in found.near_copies}
    assert near[f"copy_{kind}"].nearest == expected


def test_a_set_with_copies_is_said_to_hold_them(found: MemorisationReport) -> None:
    assert found.has_copies
    assert found.verdict.startswith("copies: ")
    assert found.spaces[0].flagged >= len(PLANTED)
    assert found.spaces[0].chance < VERDICT_RATE


def test_an_honest_set_is_not_accused(folders: Path) -> None:
    train, honest, holdout = sets(folders, "train", "honest", "holdout")
    steps: list[tuple[int, int]] = []
    report = memorisation(
        train,
        honest,
        holdout=holdout,
        settings=SETTINGS,
        progress=lambda done, total: steps.append((done, total)),
    )
    assert not report.has_copies
    assert report.verdict.startswith("no sign of copying: ")
    assert report.spaces[0].closer_to_train == pytest.approx(0.5, abs=0.2)
    assert steps[-1] == (2 * N, 2 * N)


@pytest.mark.parametrize("turn", [0, 1, 6])
def test_one_training_image_among_honest_ones_is_a_copy_whatever_chance_allows(
    folders: Path, tmp_path: Path, turn: int
) -> None:
    shutil.copytree(folders / "honest", tmp_path / "made")
    source = sorted((folders / "train/images").iterdir())[0]
    pixels = turned(np.asarray(Image.open(source).convert("RGB")), turn)
    Image.fromarray(pixels).save(tmp_path / "made/images/same.png")
    train, holdout = sets(folders, "train", "holdout")
    report = memorisation(train, open_set(tmp_path / "made"), holdout=holdout, settings=SETTINGS)
    assert report.spaces[0].chance > VERDICT_RATE  # one near copy alone proves nothing
    assert report.has_copies
    assert report.identical == ("same",)
    assert f"copies: 1 of {N + 1} images are training images to the pixel" in report.verdict
    assert "same" in {copy.stem for copy in report.near_copies}


def test_the_training_set_itself_is_all_copies(folders: Path) -> None:
    train, holdout = sets(folders, "train", "holdout")
    report = memorisation(train, train, holdout=holdout, settings=SETTINGS)
    assert report.spaces[0].flagged == N
    assert report.spaces[0].closer_to_train == 1.0
    assert all(copy.stem == copy.nearest for copy in report.near_copies)


def test_without_hold_out_the_training_images_judge_among_each_other(folders: Path) -> None:
    train, planted = sets(folders, "train", "planted")
    report = memorisation(train, planted, settings=SETTINGS)
    assert report.calibration == "training images among each other"
    assert report.spaces[0].closer_to_train is None
    assert "copy_mirrored" in {copy.stem for copy in report.near_copies}


def test_a_second_space_halves_the_rate_of_each(folders: Path) -> None:
    train, planted, holdout = sets(folders, "train", "planted", "holdout")

    def colours(images: ImageSet) -> Rows:
        means = np.stack([np.asarray(Image.open(f.path)).mean((0, 1)) for f in images.files])
        rows = (means - 100).astype(np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return Rows(rows[:, None], rows[:, None])

    settings = MemorisationSettings(rate=0.05)
    report = memorisation(
        train, planted, holdout=holdout, settings=settings, extra=colours, extra_name="colours"
    )
    assert [space.space for space in report.spaces] == ["pixels", "colours"]
    assert all(space.rate == pytest.approx(1 / (N + 1)) for space in report.spaces)
    assert set(report.distances) == {"pixels", "colours"}
    assert report.spaces[1].flagged >= 1  # the plain copy has the very same colour


def test_too_few_images_for_the_rate_are_told_with_the_number_needed(folders: Path) -> None:
    train, honest, holdout = sets(folders, "train", "honest", "holdout")
    with pytest.raises(DataError, match=r"rate of 0.01 needs 99 hold-out images, got 40") as error:
        memorisation(train, honest, holdout=holdout)
    assert "a rate of at least 0.0244" in str(error.value.hint)
    with pytest.raises(DataError, match=r"train' has 1 image; memorisation needs 2"):
        memorisation(train.subset([0]), honest, settings=SETTINGS)


def test_closest_equals_brute_force_over_turns_and_crops() -> None:
    rng = np.random.default_rng(0)

    def rows(n: int, k: int) -> np.ndarray:
        found = rng.normal(size=(n, k, 6)).astype(np.float32)
        return np.asarray(found / np.linalg.norm(found, axis=2, keepdims=True))

    queries, targets = Rows(rows(40, 8), rows(40, 3)), Rows(rows(9, 8), rows(9, 3))
    found = closest(queries, targets)
    for i in range(40):
        full = 1 - np.einsum("td,ncd->ntc", queries.turned[i], targets.cropped).max(2)
        assert found.distance[i] == pytest.approx(float(full.min()), abs=1e-6)
        assert (found.row[i], found.turn[i]) == np.unravel_index(full.argmin(), full.shape)
    own = closest(queries, queries, exclude_self=True)
    assert (own.row != np.arange(40)).all()


def test_closer_to_train_compares_equal_numbers() -> None:
    rng = np.random.default_rng(1)

    def rows(n: int) -> Rows:
        found = rng.normal(size=(n, 1, 5)).astype(np.float32)
        found /= np.linalg.norm(found, axis=2, keepdims=True)
        return Rows(found, found)

    # Ten times more training images would be closer by number alone.
    share = closer_to_train(rows(300), rows(400), rows(40), seed=0)
    assert share == pytest.approx(0.5, abs=0.08)
    train = rows(60)
    assert closer_to_train(train, train, rows(60), seed=0) == 1.0


def test_verb_writes_verdict_distances_and_thumbnails(folders: Path, tmp_path: Path) -> None:
    arguments = [
        "audit", "memorisation", "--real", str(folders / "train"),
        "--synthetic", str(folders / "planted"), "--holdout", str(folders / "holdout"),
        "--out", str(tmp_path / "audit"), "--set", "rate=0.025", "--set", "candidates=2",
    ]  # fmt: skip
    done = CliRunner().invoke(app, [*arguments, "--split", "everything"])
    assert isinstance(done.exception, DataError)
    assert "no split list 'everything.txt'" in done.exception.message
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.exception
    assert "copies: 3 of 47 images are training images to the pixel, and 7 are" in done.stdout
    content = json.loads((tmp_path / "audit/memorisation.json").read_text())
    assert content["has_copies"] is True
    assert len(content["distances"]["pixels"]) == N + len(PLANTED)
    assert content["environment"]["command"]
    for key, name in (("real", "train"), ("holdout", "holdout")):
        assert content[key] == {
            "path": str((folders / name).resolve()),
            "split": None,
            "fingerprint": open_set(folders / name).fingerprint,
        }
    assert content["extractor"] is None
    panel = Image.open(tmp_path / "audit/near_copies.png")
    assert panel.height > len(PLANTED) * 160
    closest = content["closest"]
    assert [one["stem"] for one in closest[:7]] == [one["stem"] for one in content["near_copies"]]
    assert len(closest) == 24
    assert closest[-1]["distance"] > closest[-1]["threshold"]  # shown although it is no copy
