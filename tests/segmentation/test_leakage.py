from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segmentation.sets import write_run, write_synthetic
from siamese_diffusion.core.errors import DataError
from siamese_diffusion.core.folders import SegmenterPaths
from siamese_diffusion.data.pairs import PairFolder
from siamese_diffusion.segmentation import leakage
from siamese_diffusion.segmentation.leakage import (
    NEARLY,
    find_overlap,
    read_training,
    record_training,
    refuse_overlap,
    write_training,
)
from siamese_diffusion.segmentation.mixture import mix


@pytest.fixture(scope="module")
def splits(phantoms: Path) -> dict[str, PairFolder]:
    return {s: PairFolder.open(phantoms, split=s) for s in ("train", "val", "test")}


def copy_pairs(folder: PairFolder, root: Path, *, quality: int) -> PairFolder:
    """The same pictures under other names, resized and saved again."""
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    for row in range(len(folder)):
        for kind, pixels in (("images", folder.image(row)), ("masks", folder.mask(row))):
            resample = Image.Resampling.BICUBIC if kind == "images" else Image.Resampling.NEAREST
            picture = Image.fromarray(pixels).resize((80, 90), resample)
            if kind == "images":
                picture.save(root / kind / f"copy{row}.jpg", quality=quality)
            else:
                picture.save(root / kind / f"copy{row}.png")
    return PairFolder.open(root)


def test_other_pairs_of_the_same_set_do_not_overlap(splits: dict[str, PairFolder]) -> None:
    overlap = find_overlap(record_training(mix(splits["train"])), splits["test"])
    assert overlap.count == 0
    refuse_overlap(overlap, splits["test"])


def test_training_pairs_are_refused_with_their_number(splits: dict[str, PairFolder]) -> None:
    overlap = find_overlap(record_training(mix(splits["train"])), splits["train"])
    assert overlap.stems == {leakage.TRAINED: splits["train"].stems}
    n = len(splits["train"])
    with pytest.raises(DataError, match=rf"{n} of {n} test pairs .*split 'train'") as error:
        refuse_overlap(overlap, splits["train"])
    assert error.value.hint is not None and "--allow-overlap" in error.value.hint


def test_resized_and_recompressed_copies_are_recognised(
    splits: dict[str, PairFolder], tmp_path: Path
) -> None:
    copies = copy_pairs(splits["val"], tmp_path / "copies", quality=80)
    overlap = find_overlap(record_training(mix(splits["val"])), copies)
    assert overlap.stems == {leakage.NEAR: copies.stems}
    assert find_overlap(record_training(mix(splits["train"])), copies).count == 0


def test_what_the_generator_was_trained_on_is_refused(
    splits: dict[str, PairFolder], tmp_path: Path
) -> None:
    run = write_run(tmp_path / "run", splits["test"])
    synthetic = write_synthetic(tmp_path / "s", splits["val"], run=run)
    record = record_training(mix(splits["train"], PairFolder.open(synthetic), only_synthetic=True))
    assert find_overlap(record, splits["train"]).count == 0  # real pairs were not used
    assert find_overlap(record, splits["test"]).stems == {leakage.GENERATOR: splits["test"].stems}
    assert find_overlap(record, splits["val"]).stems == {leakage.MASK_USED: splits["val"].stems}


def test_a_generator_whose_data_has_gone_is_known_by_the_whole_set(
    splits: dict[str, PairFolder], tmp_path: Path
) -> None:
    run = write_run(tmp_path / "run", splits["test"])
    synthetic = write_synthetic(tmp_path / "s", splits["val"], run=run)
    (run / "run.json").unlink()
    record = record_training(mix(splits["train"], PairFolder.open(synthetic), ratio=0.2))
    assert "recognised by the fingerprint of the whole set" in record.unguarded[0]
    assert find_overlap(record, splits["test"]).stems == {leakage.SAME_SET: splits["test"].stems}


def test_a_set_without_manifest_is_said_to_be_unguarded(
    splits: dict[str, PairFolder], tmp_path: Path
) -> None:
    synthetic = write_synthetic(tmp_path / "s", splits["val"], manifest=False)
    record = record_training(mix(splits["train"], PairFolder.open(synthetic), ratio=0.2))
    assert record.unguarded[0].startswith(f"'{synthetic}' has no manifest")
    assert find_overlap(record, splits["val"]).count == 0


def test_equal_empty_masks_prove_nothing(splits: dict[str, PairFolder], tmp_path: Path) -> None:
    roots = []
    for name, level in (("a", 40), ("b", 200)):
        for kind in ("images", "masks"):
            (tmp_path / name / kind).mkdir(parents=True)
        for row in range(2):
            picture = np.full((64, 64, 3), level + 20 * row, np.uint8)
            mask = np.zeros((64, 64), np.uint8)
            mask[:8] = 255 * row
            Image.fromarray(picture).save(tmp_path / name / "images" / f"{name}{row}.png")
            Image.fromarray(mask).save(tmp_path / name / "masks" / f"{name}{row}.png")
        roots.append(PairFolder.open(tmp_path / name))
    run = write_run(tmp_path / "run", splits["train"])
    synthetic = write_synthetic(tmp_path / "s", roots[0], run=run)
    record = record_training(mix(splits["train"], PairFolder.open(synthetic), ratio=0.1))
    assert find_overlap(record, roots[1]).stems == {leakage.MASK_USED: ("b1",)}


def test_the_record_survives_the_disk(splits: dict[str, PairFolder], tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", splits["test"])
    synthetic = write_synthetic(tmp_path / "s", splits["val"], run=run)
    record = record_training(mix(splits["train"], PairFolder.open(synthetic), ratio=0.2))
    paths = SegmenterPaths(tmp_path)
    write_training(paths, record)
    assert read_training(paths) == record


def test_the_distance_of_a_copy_lies_below_that_of_a_frame_shifted_by_a_twentieth(
    splits: dict[str, PairFolder],
) -> None:
    image = splits["train"].image(0)
    own = np.frombuffer(leakage.look(image), np.uint8).astype(float)
    large = np.asarray(Image.fromarray(image).resize((150, 140)))
    copied = np.frombuffer(leakage.look(large), np.uint8).astype(float)
    moved = np.frombuffer(leakage.look(np.roll(image, 3, 1)), np.uint8).astype(float)
    assert np.abs(copied - own).mean() < NEARLY < np.abs(moved - own).mean()
