from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from reference.literal_scores import scores
from siamese_diffusion.core.errors import ConfigError, DataError, NumericsError
from siamese_diffusion.core.folders import SegmenterPaths
from siamese_diffusion.data.images import resize_mask
from siamese_diffusion.data.pairs import PairFolder
from siamese_diffusion.segmentation.definitions import DEFINITIONS
from siamese_diffusion.segmentation.evaluation import evaluate, outline, protocol_text
from siamese_diffusion.segmentation.fitting import fit_segmenter
from siamese_diffusion.segmentation.inference import predict, predict_folder
from siamese_diffusion.segmentation.run_folder import load_segmenter

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The phantoms at 80 x 72 pixels, so that own size and network size differ."""
    root = tmp_path_factory.mktemp("data") / "set"
    shutil.copytree(phantoms, root)
    for kind, resample in (
        ("images", Image.Resampling.BICUBIC),
        ("masks", Image.Resampling.NEAREST),
    ):
        for path in (root / kind).glob("*.png"):
            Image.open(path).resize((80, 72), resample).save(path)
    return root


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    overrides = ["inputs.size=64", "network.width=4", "train.batch_size=4", "train.steps=12"]
    out = tmp_path_factory.mktemp("runs") / "run"
    return fit_segmenter(
        "unet", data, out, preset="small", overrides=overrides, device="cpu", quiet=True
    )


def test_every_definition_at_both_sizes_equals_its_literal_restatement(
    run: Path, data: Path
) -> None:
    result = evaluate(run, data, splits=["test"], device="cpu", quiet=True)
    model, settings, _ = load_segmenter(run)
    folder = PairFolder.open(data, split="test")
    found = list(predict(model, folder.pairs, settings.inputs.size, CPU))
    for size in ("mask", "network"):
        images = []
        for row, (_, own, network) in enumerate(found):
            prediction = own if size == "mask" else network
            mask = folder.mask(row) if size == "mask" else resize_mask(folder.mask(row), 64)
            images.append((prediction.grey, prediction.decision, mask > 127))
        expected = scores(images, "one")
        stored = result["sets"]["test"]["scores"][size]  # type: ignore[index]
        for name in DEFINITIONS:
            assert stored[name]["dice"] == pytest.approx(expected[name][0]), (size, name)
            assert stored[name]["iou"] == pytest.approx(expected[name][1]), (size, name)


def test_the_result_holds_values_of_each_image_and_reads_back(
    run: Path, data: Path, tmp_path: Path
) -> None:
    path = tmp_path / "result.json"
    evaluate(run, data, path, splits=["test", "val"], device="cpu", quiet=True)
    result = json.loads(path.read_text())
    test = result["sets"]["test"]
    values = [image["mask"]["sweep_fg"][0] for image in test["images"]]
    assert np.mean(values) == pytest.approx(test["scores"]["mask"]["sweep_fg"]["dice"])
    assert [i["stem"] for i in test["images"]] == list(PairFolder.open(data, split="test").stems)
    both = values + [i["mask"]["sweep_fg"][0] for i in result["sets"]["val"]["images"]]
    assert result["overall"]["mask"]["sweep_fg"]["dice"] == pytest.approx(np.mean(both))
    assert result["weights_sha256"] and result["environment"]["command"]
    worst = np.array(Image.open(tmp_path / "result_worst_test.png"))
    assert worst.shape == (192, 3 * 192, 3) and (worst == (0, 255, 0)).all(-1).any()
    dice = dict(zip([i["stem"] for i in test["images"]], values, strict=True))
    assert test["worst"] == sorted(dice, key=lambda stem: dice[stem])  # as in the picture
    model, _, _ = load_segmenter(run)
    assert result["parameters"] == sum(p.numel() for p in model.parameters())
    evaluate(run, data, path, splits=["test"], worst=False, resamples=0, device="cpu", quiet=True)
    assert json.loads(path.read_text())["sets"]["test"]["worst"] == []


def test_a_protocol_prints_its_own_definition_at_its_own_size(run: Path, data: Path) -> None:
    result = evaluate(
        run, data, splits=["test", "val"], protocol="isic-unet", device="cpu", quiet=True
    )
    (rows,) = [p["sets"] for p in result["protocols"].values()]  # type: ignore[attr-defined]
    scored = result["sets"]["test"]["scores"]["network"]  # type: ignore[index]
    assert rows[0]["mdice"] == scored["pooled_fg"]["dice"]
    assert rows[0]["miou"] == scored["pooled_2c"]["iou"]
    text = protocol_text(result)
    assert "overall" in text and f"{100 * rows[0]['mdice']:.2f}" in text


def test_pairs_of_two_sets_are_said_to_count_twice(run: Path, data: Path, tmp_path: Path) -> None:
    root = tmp_path / "set"
    shutil.copytree(data, root)
    (root / "part.txt").write_text(PairFolder.open(root, split="test").stems[0] + "\n")
    result = evaluate(run, root, splits=["part", "test"], resamples=0, device="cpu", quiet=True)
    assert result["shared_between_sets"] == [
        "splits 'part' and 'test' share 1 pairs, which count twice in the overall score"
    ]


def test_training_pairs_are_refused_unless_overridden_and_that_is_recorded(
    run: Path, data: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="14 of 14 test pairs"):
        evaluate(run, data, tmp_path / "r.json", splits=["train"], device="cpu", quiet=True)
    assert not (tmp_path / "r.json").exists()
    result = evaluate(
        run, data, splits=["train"], allow_overlap=True, resamples=0, device="cpu", quiet=True
    )
    assert result["overlap_allowed"] is True
    assert len(result["sets"]["train"]["overlap"]["trained on"]) == 14  # type: ignore[index]


def test_empty_truths_and_constant_maps_are_counted(run: Path, data: Path, tmp_path: Path) -> None:
    root = tmp_path / "set"
    shutil.copytree(data, root)
    stem = PairFolder.open(root, split="test").stems[0]
    mask = np.array(Image.open(root / "masks" / f"{stem}.png"))
    Image.fromarray(np.zeros_like(mask)).save(root / "masks" / f"{stem}.png")
    broken = tmp_path / "run"
    shutil.copytree(run, broken)
    model, _, _ = load_segmenter(run)
    state = {n: torch.zeros_like(t) for n, t in model.state_dict().items()}
    save_file(state, SegmenterPaths(broken).weights)
    result = evaluate(broken, root, splits=["test"], allow_overlap=True, device="cpu", quiet=True)
    test = result["sets"]["test"]  # type: ignore[index]
    assert (test["empty_truth"], test["constant_maps"]) == (1, 3)


def test_logits_that_are_not_finite_name_the_picture(run: Path, data: Path, tmp_path: Path) -> None:
    broken = tmp_path / "run"
    shutil.copytree(run, broken)
    model, _, _ = load_segmenter(run)
    state = dict(model.state_dict())
    state["out.bias"] = torch.full_like(state["out.bias"], float("nan"))
    save_file(state, SegmenterPaths(broken).weights)
    stem = PairFolder.open(data, split="test").stems[0]
    with pytest.raises(NumericsError, match=f"logits of '{stem}' are not finite"):
        evaluate(broken, data, splits=["test"], device="cpu", quiet=True)


def test_a_test_image_without_mask_or_with_one_of_another_size_is_refused(
    run: Path, data: Path, tmp_path: Path
) -> None:
    root = tmp_path / "set"
    shutil.copytree(data, root)
    first, second = PairFolder.open(root, split="test").stems[:2]
    (root / "masks" / f"{first}.png").unlink()
    with pytest.raises(DataError, match=f"image without mask: {first}"):
        evaluate(run, root, splits=["test"], device="cpu", quiet=True)
    shutil.copy(data / "masks" / f"{first}.png", root / "masks" / f"{first}.png")
    Image.new("L", (10, 12)).save(root / "masks" / f"{second}.png")
    with pytest.raises(DataError, match=rf"'{second}\.png' is 10x12 but its image .* is 80x72"):
        evaluate(run, root, splits=["test"], device="cpu", quiet=True)


def test_masks_with_several_classes_are_refused(run: Path, data: Path, tmp_path: Path) -> None:
    root = tmp_path / "set"
    shutil.copytree(data, root)
    for path in (root / "masks").glob("*.png"):
        labels = (np.array(Image.open(path)) > 127).astype(np.uint8)
        labels[:20] = 2
        Image.fromarray(labels).save(path)
    with pytest.raises(DataError, match="has values 0, 1, 2"):
        evaluate(run, root, splits=["test"], device="cpu", quiet=True)


def test_unknown_protocols_and_splits_are_refused_before_anything_is_loaded(data: Path) -> None:
    with pytest.raises(ConfigError, match="unknown protocol 'polyps'; did you mean 'polyp'"):
        evaluate("nowhere", data, protocol="polyps")
    with pytest.raises(DataError, match=r"no split list 'tset\.txt'"):
        evaluate("nowhere", data, splits=["tset"])
    with pytest.raises(ConfigError, match="resamples must be 0 or more, got -1"):
        evaluate("nowhere", data, resamples=-1)


def test_predicted_masks_are_binary_and_of_the_pictures_size(
    run: Path, data: Path, tmp_path: Path
) -> None:
    assert predict_folder(run, data, tmp_path / "m", split="test", device="cpu", quiet=True) == 3
    model, _, _ = load_segmenter(run)
    folder = PairFolder.open(data, split="test")
    for pair, own, _ in predict(model, folder.pairs, 64, CPU):
        mask = np.array(Image.open(tmp_path / "m" / f"{pair.stem}.png"))
        assert mask.shape == (72, 80)
        assert np.array_equal(mask, 255 * own.decision)


def test_predictions_do_not_depend_on_who_shares_the_batch(run: Path, data: Path) -> None:
    model, _, _ = load_segmenter(run)
    folder = PairFolder.open(data)
    together = [p[1].grey.astype(int) for p in predict(model, folder.pairs, 64, CPU)]
    alone = [next(predict(model, [pair], 64, CPU))[1].grey.astype(int) for pair in folder.pairs]
    assert max(np.abs(a - b).max() for a, b in zip(together, alone, strict=True)) <= 1


def test_an_outline_is_two_pixels_of_the_inside() -> None:
    mask = np.zeros((12, 12), bool)
    mask[2:10, 2:10] = True
    edge = outline(mask)
    assert edge.sum() == 64 - 16 and not edge[4:8, 4:8].any() and not (edge & ~mask).any()
