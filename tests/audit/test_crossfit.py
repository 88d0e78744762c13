"""Cross-fitted alignment: who judges whom, anchors, worst pairs, refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor
from typer.testing import CliRunner

from siamese_diffusion.audit import crossfit
from siamese_diffusion.audit.crossfit import (
    AlignmentSettings,
    assign_folds,
    cross_fitted_alignment,
    train_judges,
)
from siamese_diffusion.audit.segmenter import as_tensors
from siamese_diffusion.audit.small_unet import SmallUNet
from siamese_diffusion.cli.main import app
from siamese_diffusion.core.config import build
from siamese_diffusion.core.errors import ConfigError, DataError
from siamese_diffusion.data.pairs import PairFolder

SETTINGS = AlignmentSettings(folds=3, size=32, steps=2)


def test_folds_are_of_equal_size_and_seeded() -> None:
    folds = assign_folds(20, SETTINGS)
    assert sorted(folds.count(fold) for fold in range(3)) == [6, 7, 7]
    assert folds == assign_folds(20, SETTINGS)
    assert folds != assign_folds(20, SETTINGS.model_copy(update={"seed": 1}))


def test_no_image_is_judged_by_a_network_that_saw_it(
    phantoms: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Synthetic images here are the real ones, so that being seen can be looked up by content."""
    folder = PairFolder.open(phantoms)
    seen: dict[int, set[bytes]] = {}
    judged: list[bytes] = []

    def train(image: Tensor, mask: Tensor, **_: object) -> SmallUNet:
        network = SmallUNet()
        seen[id(network)] = {one.numpy().tobytes() for one in image}
        keep.append(network)
        return network

    def ask(network: SmallUNet, image: Tensor) -> Tensor:
        for one in image:
            assert one.numpy().tobytes() not in seen[id(network)]
            judged.append(one.numpy().tobytes())
        return torch.zeros(len(image), 1, 32, 32, dtype=torch.bool)

    keep: list[SmallUNet] = []  # so that ids stay different
    monkeypatch.setattr(crossfit, "train_segmenter", train)
    monkeypatch.setattr(crossfit, "predict", ask)
    report = cross_fitted_alignment(folder, folder, settings=SETTINGS)
    images = {one.numpy().tobytes() for one in as_tensors(folder, 32)[0]}
    assert set(judged) == images
    assert len(judged) == 2 * len(folder)  # once as real, once as synthetic
    assert len(seen) == 3
    assert all(score.judges == 1 for score in (*report.synthetic, *report.real))


def test_pairs_of_foreign_masks_are_judged_by_all(phantoms: Path) -> None:
    real = PairFolder.open(phantoms, split="train")
    foreign = PairFolder.open(phantoms, split="test")
    report = cross_fitted_alignment(real, foreign, settings=SETTINGS)
    assert {score.judges for score in report.synthetic} == {3}
    told = cross_fitted_alignment(
        real, foreign, mask_stems=real.stems[: len(foreign)], settings=SETTINGS
    )
    assert {score.judges for score in told.synthetic} == {1}


def test_training_tells_aligned_pairs_from_shuffled_ones(phantoms: Path) -> None:
    folder = PairFolder.open(phantoms)
    settings = AlignmentSettings(folds=2, size=32, steps=40)
    steps: list[tuple[int, int]] = []
    report = cross_fitted_alignment(
        folder, folder, settings=settings, progress=lambda *s: steps.append(s)
    )
    content = report.as_dict()
    assert content["dice_on_synthetic"] == pytest.approx(content["dice_on_real"])
    assert report.shuffled_dice < float(str(content["dice_on_real"])) - 0.1
    assert steps[-1] == (80, 80)
    assert "20 synthetic pairs" in report.text()


def test_scores_depend_on_the_seed_alone(phantoms: Path) -> None:
    folder = PairFolder.open(phantoms)
    few = folder.without(folder.stems[6:])
    settings = AlignmentSettings(folds=2, size=32, steps=1)
    first, again = (cross_fitted_alignment(few, few, settings=settings) for _ in range(2))
    assert first.synthetic == again.synthetic
    other = settings.model_copy(update={"seed": 1})
    assert cross_fitted_alignment(few, few, settings=other).synthetic != first.synthetic


def test_judges_trained_once_say_the_same_of_any_part_of_a_set(phantoms: Path) -> None:
    folder = PairFolder.open(phantoms)
    settings = AlignmentSettings(folds=2, size=32, steps=8)
    whole = {s.stem: s.dice for s in cross_fitted_alignment(folder, folder, settings=settings).real}
    judges = train_judges(folder, settings)
    for few in (folder.without(folder.stems[4:]), folder.without(folder.stems[1:])):
        report = judges.judge(few)
        assert [s.stem for s in report.synthetic] == list(few.stems)
        assert [s.dice for s in report.synthetic] == pytest.approx([whole[s] for s in few.stems])
        assert 0 <= report.shuffled_dice <= 1


def test_verb_writes_scores_and_the_worst_pairs(phantoms: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(
        app,
        [
            "audit", "alignment", "--real", str(phantoms), "--synthetic", str(phantoms),
            "--out", str(tmp_path), "--set", "steps=8", "--set", "size=32", "--set", "folds=2",
        ],
    )  # fmt: skip
    assert done.exit_code == 0, done.exception
    assert "below the worst 5 % of real ones" in done.stdout
    content = json.loads((tmp_path / "alignment.json").read_text())
    assert content["n_real"] < content["n_synthetic"] == 20  # the training list of the real folder
    scores = {pair["stem"]: pair["dice"] for pair in content["pairs"]}
    floor = content["poor_below_dice"]
    assert content["poor"] == [stem for stem, dice in scores.items() if dice < floor]
    assert content["poor_share"] == len(content["poor"]) / 20
    assert Image.open(tmp_path / "worst_pairs.png").height == 20 * 198 + 4
    assert len(content["real_pairs"]) == content["n_real"]
    real = PairFolder.open(phantoms, split="train")
    assert content["real"] == {
        "path": str(phantoms.resolve()),
        "split": "train",
        "fingerprint": real.fingerprint(),
    }
    found = {path.stem for path in (tmp_path / "worst_pairs").iterdir()}
    assert found == set(scores)
    assert Image.open(tmp_path / f"worst_pairs/{content['pairs'][0]['stem']}.png").size == (32, 32)


def test_sets_too_small_are_refused_with_their_numbers(phantoms: Path) -> None:
    folder = PairFolder.open(phantoms)
    few = folder.without(folder.stems[2:])
    with pytest.raises(DataError, match=r"has 2 pairs, fewer than the 3 folds"):
        cross_fitted_alignment(few, folder, settings=SETTINGS)
    with pytest.raises(DataError, match=r"has 1 pairs; alignment needs 2 or more"):
        cross_fitted_alignment(folder, folder.without(folder.stems[1:]), settings=SETTINGS)


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"size"):
        build(AlignmentSettings, {"size": 50})
    with pytest.raises(ConfigError, match=r"folds"):
        build(AlignmentSettings, {"folds": 1})
