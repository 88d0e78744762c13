"""Sets of images: masks they belong to, protocol `paper`, partners, remarks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from metrics.bench import image_set
from metrics.pictures import write_images
from siamese_diffusion.core.errors import DataError
from siamese_diffusion.data.pairs import image_fingerprint
from siamese_diffusion.metrics.sets import one_per_mask, open_real, open_set, partners


def test_images_belong_to_the_mask_of_their_stem(tmp_path: Path) -> None:
    found = open_set(write_images(tmp_path / "a", 3))
    assert [(f.stem, f.mask_stem, f.fold, f.size) for f in found.files] == [
        (f"p00{i}", f"p00{i}", 0, (48, 48)) for i in range(3)
    ]


def test_a_manifest_tells_mask_and_fold_and_changed_images_are_told(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "a", 2)
    plain = open_set(folder)
    records = [
        {"id": "p000", "stem": "m7", "fold": 0, "image_sha256": plain.files[0].sha256},
        {"id": "p001", "stem": "m7", "fold": 1, "image_sha256": "0" * 64},
    ]
    (folder / "manifest.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    found = open_set(folder)
    assert [(f.mask_stem, f.fold) for f in found.files] == [("m7", 0), ("m7", 1)]
    assert "1 images of" in found.warnings[0]
    assert "are not the ones in its manifest (p001)" in found.warnings[0]


def test_fingerprint_follows_content_and_not_the_place(tmp_path: Path) -> None:
    first = open_set(write_images(tmp_path / "a", 3))
    second = open_set(write_images(tmp_path / "b", 3))
    assert first.fingerprint == second.fingerprint
    hashes = [(file.stem, file.sha256) for file in first.files]
    assert image_fingerprint(hashes) == first.fingerprint  # what others compare it with
    assert first.fingerprint != open_set(write_images(tmp_path / "c", 3, seed=1)).fingerprint
    assert first.subset([0, 1]).fingerprint != first.fingerprint


def test_real_side_is_the_training_list_if_there_is_one(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "a", 4)
    assert len(open_real(folder)) == 4
    (folder / "train.txt").write_text("p001\np003\n")
    assert [f.stem for f in open_real(folder).files] == ["p001", "p003"]
    assert open_real(folder).name == f"'{folder}' (train.txt)"
    assert len(open_set(folder)) == 4


def test_halves_are_disjoint_seeded_and_equal_in_size() -> None:
    images = image_set("real", [f"m{i}" for i in range(9)])
    first, second = images.halves(0, 0)
    assert len(first) == len(second) == 4
    assert not {f.stem for f in first.files} & {f.stem for f in second.files}
    assert images.halves(0, 0)[0].files == first.files
    assert images.halves(0, 1)[0].files != first.files


def test_protocol_paper_takes_the_first_fold_of_each_training_mask() -> None:
    real = image_set("real", ["a", "b"])
    synthetic = image_set("synthetic", ["b", "a", "a", "b"])
    chosen = one_per_mask(real, synthetic)
    assert sorted((f.mask_stem, f.fold) for f in chosen.files) == [("a", 0), ("b", 0)]


def test_protocol_paper_names_masks_that_do_not_fit() -> None:
    real, synthetic = image_set("real", ["a", "b", "c"]), image_set("synthetic", ["a", "x"])
    with pytest.raises(
        DataError,
        match=r"2 of 3 training masks have no synthetic image \(b, c\); "
        r"1 images are of masks not in 'real' \(x\)",
    ):
        one_per_mask(real, synthetic)


def test_partners_share_a_mask() -> None:
    real, synthetic = image_set("real", ["a", "b"]), image_set("synthetic", ["b", "b", "a"])
    assert partners(real, synthetic) == ([1, 1, 0], [0, 1, 2])
    with pytest.raises(DataError, match=r"1 of 2 images of 'synthetic' .* in 'real' \(x\)"):
        partners(real, image_set("synthetic", ["a", "x"]))


def test_repeats_and_mixed_formats_are_told(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "a", 2)
    shutil.copy(folder / "images/p000.png", folder / "images/q.png")
    shutil.copy(folder / "images/p001.png", folder / "images/r.BMP")
    warnings = " ".join(open_set(folder).warnings)
    assert "2 of 4 images" in warnings
    assert "mixes file formats: .bmp, .png" in warnings
