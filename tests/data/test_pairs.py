"""Opening and reading data-set folders."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from siamese_diffusion.core.errors import DataError
from siamese_diffusion.data.pairs import Need, PairFolder, load_arrays

SETS = ("polyp", "isic2018", "ph2", "nuclei", "magnetic-tile", "crackforest")


def write(path: Path, value: int = 255, size: tuple[int, int] = (12, 10)) -> None:
    """A picture whose upper left quarter has `value`; (width, height)."""
    pixels = np.zeros((size[1], size[0]), np.uint8)
    pixels[: size[1] // 2, : size[0] // 2] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "polyp"
    for stem in ("c", "a", "b"):
        write(folder / "images" / f"{stem}.jpg", 150)
        write(folder / "masks" / f"{stem}.png")
    (folder / "train.txt").write_text("b\na\n")
    return folder


def test_pairs_are_sorted_by_stem_whatever_the_order_of_a_list(root: Path) -> None:
    assert PairFolder.open(root).stems == ("a", "b", "c")
    assert PairFolder.open(root, split="train").stems == ("a", "b")


def test_split_lists_may_hold_suffixes_blank_lines_and_a_byte_order_mark(root: Path) -> None:
    (root / "val.txt").write_text("\ufeffc.jpg\n\n", encoding="utf-8")
    assert PairFolder.open(root, split="val").stems == ("c",)


def test_image_and_mask_have_the_asked_size_and_types(root: Path) -> None:
    folder = PairFolder.open(root)
    assert folder.image(0).shape == (10, 12, 3)
    image, mask = folder.image(0, 32), folder.mask(0, 32)
    assert image.shape == (32, 32, 3)
    assert image.dtype == np.uint8
    assert mask.shape == (32, 32)
    assert mask.dtype == np.uint8
    assert set(np.unique(mask)) == {0, 255}
    assert mask[:16, :16].all()
    assert not mask[16:].any()


def test_images_and_masks_alone_may_lie_flat_or_in_their_subfolder(
    root: Path, tmp_path: Path
) -> None:
    for need in ("images", "masks"):
        inside = PairFolder.open(root, need=need)
        flat = PairFolder.open(root / need, need=need)
        assert inside.stems == flat.stems == ("a", "b", "c")
        assert (flat.pairs[0].image is None) == (need == "masks")
        assert (flat.pairs[0].mask is None) == (need == "images")


def test_reading_what_the_folder_was_not_opened_for_is_an_error(root: Path) -> None:
    with pytest.raises(DataError, match=r"'a' has no image: .* opened for masks only"):
        PairFolder.open(root, need="masks").image(0)
    with pytest.raises(DataError, match=r"'a' has no mask: .* opened for images only"):
        PairFolder.open(root, need="images").mask(0)


def test_all_problems_of_a_folder_are_told_at_once(root: Path) -> None:
    write(root / "images" / "only.png")
    write(root / "masks" / "lonely.png")
    write(root / "images" / "b.png")
    write(root / "masks" / "c.png", size=(12, 11))
    (root / "images" / "a.jpg").write_text("no picture")
    with pytest.raises(DataError) as caught:
        PairFolder.open(root)
    message = str(caught.value)
    assert "image without mask: only" in message
    assert "mask without image: lonely" in message
    assert "several images with one stem: b (b.jpg, b.png)" in message
    assert "mask 'c.png' is 12x11 but its image 'c.jpg' is 12x10" in message
    assert "a.jpg' is not a picture" in message
    assert f"siamdiff data check {root}" in message


def test_long_lists_of_stems_are_shortened(root: Path) -> None:
    for number in range(8):
        write(root / "images" / f"x{number}.png")
    with pytest.raises(DataError, match="image without mask: x0, x1, x2, x3, x4 and 3 more"):
        PairFolder.open(root)


def test_a_common_ending_of_mask_names_is_recognised(tmp_path: Path) -> None:
    for stem in ("a", "b"):
        write(tmp_path / "images" / f"{stem}.png")
        write(tmp_path / "masks" / f"{stem}_segmentation.png")
    with pytest.raises(DataError, match="remove the ending '_segmentation' from the names of"):
        PairFolder.open(tmp_path)


def test_only_the_pairs_of_the_split_are_judged(root: Path) -> None:
    (root / "masks" / "c.png").unlink()
    assert len(PairFolder.open(root, split="train")) == 2
    with pytest.raises(DataError, match="image without mask: c"):
        PairFolder.open(root)


def test_split_list_with_unknown_and_repeated_stems(root: Path) -> None:
    (root / "val.txt").write_text("a\na\n" + "".join(f"z{i}\n" for i in range(7)))
    with pytest.raises(DataError) as caught:
        PairFolder.open(root, split="val")
    assert "'val.txt' names unknown stems: z0, z1, z2, z3, z4 and 2 more" in str(caught.value)
    assert "'val.txt' names stems twice: a" in str(caught.value)


def test_unknown_split_names_the_lists_that_exist(root: Path) -> None:
    with pytest.raises(DataError, match=r"no split list 'trian\.txt' .*'train'\? \(lists here: tr"):
        PairFolder.open(root, split="trian")


def test_empty_split_list_is_an_error(root: Path) -> None:
    (root / "val.txt").write_text("\n")
    with pytest.raises(DataError, match=r"split list 'val\.txt' is empty"):
        PairFolder.open(root, split="val")


def test_missing_folders_are_named(tmp_path: Path, root: Path) -> None:
    with pytest.raises(DataError, match="nowhere' does not exist"):
        PairFolder.open(tmp_path / "nowhere")
    with pytest.raises(DataError, match="is a file, not a folder"):
        PairFolder.open(root / "train.txt")
    (root / "masks").rename(root / "mask")
    with pytest.raises(DataError, match=r"no folder 'masks' in .*did you mean 'mask'\?"):
        PairFolder.open(root)
    with pytest.raises(DataError, match="no folder 'masks'"):
        PairFolder.open(root, need="masks")


@pytest.mark.parametrize("need", ["pairs", "images", "masks"])
def test_zero_pairs_are_an_error(tmp_path: Path, need: Need) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    with pytest.raises(DataError, match=r"no usable .* found"):
        PairFolder.open(tmp_path, need=need)


def test_prompt_comes_from_argument_file_or_name(root: Path) -> None:
    assert PairFolder.open(root).pairs[0].prompt == "A photo of a polyp."
    (root / "prompt.txt").write_text("Colonoscopy.\n")
    assert PairFolder.open(root).prompt == "Colonoscopy."
    assert PairFolder.open(root, prompt="Mine").pairs[0].prompt == "Mine"
    with pytest.raises(DataError, match=r"no split list 'prompt\.txt'"):
        PairFolder.open(root, split="prompt")


def test_release_index_gives_pairs_and_prompts(tmp_path: Path) -> None:
    write(tmp_path / "gt" / "1.png")
    write(tmp_path / "x" / "img1.jpg")
    line = {"source": "gt/1.png", "target": "x/img1.jpg", "prompt": "A photo of one."}
    (tmp_path / "prompt.json").write_text(json.dumps(line) + "\n")
    pair = PairFolder.open(tmp_path).pairs[0]
    assert (pair.stem, pair.prompt) == ("img1", "A photo of one.")
    assert PairFolder.open(tmp_path, need="masks").stems == ("1",)
    assert PairFolder.open(tmp_path, prompt="Mine").pairs[0].prompt == "Mine"


def test_release_index_with_missing_files_or_fields_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / "masks" / "1.png")
    lines = [{"source": "masks/1.png", "target": "images/1.png"}, {"source": "masks/1.png"}]
    (tmp_path / "prompt.json").write_text("\n".join(map(json.dumps, lines)) + "\nnot json\n")
    with pytest.raises(DataError) as caught:
        PairFolder.open(tmp_path)
    assert "names missing files: " in str(caught.value)
    assert "images/1.png" in str(caught.value)
    assert "lacks source and target in line 2" in str(caught.value)
    assert "line 3 is not a JSON object" in str(caught.value)


def test_mask_rule_is_found_over_all_masks_and_conflicts_are_named(root: Path) -> None:
    assert PairFolder.open(root).mask_rule.kind == "0/255"
    write(root / "masks" / "b.png", 1)
    with pytest.raises(DataError, match=r"b\.png' has values 0 and 1, .*a\.png' is of kind 0/255"):
        _ = PairFolder.open(root).mask_rule


def test_unreadable_masks_are_all_named(root: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 2, (64, 64)).astype(np.uint8) * 255
    for stem in ("a", "b"):
        Image.fromarray(noise).save(root / "masks" / f"{stem}.png")
        Image.fromarray(noise).save(root / "images" / f"{stem}.jpg")
        whole = (root / "masks" / f"{stem}.png").read_bytes()
        (root / "masks" / f"{stem}.png").write_bytes(whole[:200])
    folder = PairFolder.open(root)
    with pytest.raises(DataError, match=r"(?s)a\.png' is truncated.*b\.png' is truncated"):
        load_arrays(folder, 8)


def test_degenerate_masks_are_listed_and_can_be_dropped(root: Path) -> None:
    write(root / "masks" / "a.png", 0)
    Image.fromarray(np.full((10, 12), 255, np.uint8)).save(root / "masks" / "b.png")
    folder = PairFolder.open(root)
    assert folder.degenerate() == {"empty": ["a"], "full": ["b"]}
    rest = folder.without([stem for stems in folder.degenerate().values() for stem in stems])
    assert rest.stems == ("c",)
    assert rest.mask_rule == folder.mask_rule
    with pytest.raises(DataError, match=r"no pair of .* is left after dropping 3"):
        folder.without("abc")


def test_a_lesion_lost_by_resizing_counts_as_empty_at_that_size(root: Path) -> None:
    thin = np.zeros((10, 12), np.uint8)
    thin[0, 0] = 255
    Image.fromarray(thin).save(root / "masks" / "a.png")
    folder = PairFolder.open(root)
    assert folder.degenerate()["empty"] == []
    assert folder.degenerate(4)["empty"] == ["a"]


def test_fingerprint_depends_on_content_prompt_and_nothing_else(root: Path) -> None:
    first = PairFolder.open(root).fingerprint()
    assert len(first) == 64
    moved = root.rename(root.parent / "elsewhere")
    prompt = "A photo of a polyp."
    assert PairFolder.open(moved, prompt=prompt).fingerprint() == first
    assert PairFolder.open(moved, prompt="other").fingerprint() != first
    assert PairFolder.open(moved, prompt=prompt, split="train").fingerprint() != first
    assert PairFolder.open(moved, prompt=prompt, need="images").fingerprint() != first
    write(moved / "masks" / "a.png", 254)
    assert PairFolder.open(moved, prompt=prompt).fingerprint() != first


def test_load_arrays_equals_single_reads_and_tells_progress(root: Path) -> None:
    folder = PairFolder.open(root)
    calls: list[tuple[int, int]] = []
    pictures, outlines = load_arrays(folder, 16, progress=lambda n, total: calls.append((n, total)))
    assert pictures is not None
    assert outlines is not None
    np.testing.assert_array_equal(pictures[1], folder.image(1, 16))
    np.testing.assert_array_equal(outlines[1], folder.mask(1, 16))
    assert calls == [(1, 3), (2, 3), (3, 3)]
    assert load_arrays(PairFolder.open(root, need="masks"), 16)[0] is None
    assert load_arrays(PairFolder.open(root, need="images"), 16)[1] is None


def test_hidden_and_foreign_files_are_ignored(root: Path) -> None:
    (root / "images" / "._a.jpg").write_text("finder")
    (root / "images" / ".b.png.12ab.tmp").write_text("half")
    (root / "images" / "notes.csv").write_text("x")
    assert len(PairFolder.open(root)) == 3


def test_large_sets_find_their_rule_on_a_stated_sample(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("siamese_diffusion.data.pairs.SAMPLE_MASKS", 2)
    assert "seen in 2 of 3 masks" in PairFolder.open(root).mask_rule.statement


@pytest.mark.parametrize("name", SETS)
def test_real_sets_open(name: str) -> None:
    shared = Path(os.environ.get("SIAMDIFF_SHARED", Path(__file__).parents[2].parent / "shared"))
    if not (shared / "data" / name).is_dir():
        pytest.skip(f"no real data at {shared / 'data' / name} (set SIAMDIFF_SHARED)")
    folder = PairFolder.open(shared / "data" / name, split="val")
    assert folder.mask_rule.kind == "0/255"
    assert folder.image(0, 32).shape == (32, 32, 3)
