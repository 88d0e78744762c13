"""Which scores a comparison computes, and on which sets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from siamese_diffusion.comparison import scores
from siamese_diffusion.comparison.compare import check_terms
from siamese_diffusion.comparison.scores import HEADINGS, NEEDS, SCORES, Sets, score, wanted
from siamese_diffusion.comparison.settings import CompareSettings
from siamese_diffusion.core.errors import ConfigError, WeightsError
from siamese_diffusion.data.pairs import PairFolder

WEIGHTS = Path("file")


def test_a_score_without_its_extractor_is_left_out() -> None:
    assert wanted({}) == ["alignment"]
    assert wanted({"inception": WEIGHTS}) == ["alignment", "fidelity"]
    assert wanted({"lpips-alex": WEIGHTS, "inception": WEIGHTS}) == list(SCORES)


def test_every_number_of_the_table_belongs_to_a_score() -> None:
    assert {name.partition("/")[0] for name in HEADINGS} == set(SCORES)
    assert set(NEEDS) < set(SCORES)


def test_an_extractor_that_serves_no_score_is_refused() -> None:
    settings = CompareSettings(generators=("copy-paste",), extractors={"clip": WEIGHTS})
    with pytest.raises(ConfigError, match="extractor 'clip' serves no score") as caught:
        check_terms(settings)
    assert "inception, lpips-alex" in str(caught.value.hint)


def test_missing_weights_are_told_of_before_anything_is_trained() -> None:
    settings = CompareSettings(generators=("copy-paste",), extractors={"inception": WEIGHTS})
    with pytest.raises(WeightsError, match="file"):
        check_terms(settings)


def pairs_in(folder: Path, shift: int, n: int = 3) -> PairFolder:
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for index in range(n):
        value = np.full((16, 16, 3), 40 * index + shift, np.uint8)
        Image.fromarray(value).save(folder / "images" / f"p{index}.png")
        mask = np.zeros((16, 16), np.uint8)
        mask[4:8] = 255
        Image.fromarray(mask).save(folder / "masks" / f"p{index}.png")
    return PairFolder.open(folder)


def test_fidelity_is_measured_against_training_and_likeness_against_the_masks_own_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    t, h, r, s = (pairs_in(tmp_path / name, shift) for shift, name in enumerate("thrs"))
    sets = Sets(t, h, r, s)
    asked: list[tuple[str, str, tuple[str, ...]]] = []

    def measure(real: PairFolder, given: Sets, metrics: tuple[str, ...]) -> dict[str, float]:
        asked.append((real.root.name, given.synthetic.root.name, metrics))
        return {"fid": 1.0, "kid": 0.002, "density": 0.5, "coverage": 0.25, "lpips": 0.125}

    monkeypatch.setattr(scores, "_measure", measure)
    fidelity = {"fid": 1.0, "kid": 2.0, "density": 0.5, "coverage": 0.25}
    assert score("fidelity", sets) == {f"fidelity/{name}": v for name, v in fidelity.items()}
    assert score("likeness", sets) == {"likeness/lpips": 0.125}
    assert asked == [("t", "s", ("fid", "kid", "prdc")), ("r", "s", ("lpips",))]


def test_likeness_of_copies_is_zero_and_of_others_is_not(tmp_path: Path, shared: Path) -> None:
    folder = shared / "weights" / "lpips"
    real = pairs_in(tmp_path / "real", 0)
    weights = {"lpips-alex": folder}
    copies = Sets(real, real, real, pairs_in(tmp_path / "copies", 0), weights)
    others = Sets(real, real, real, pairs_in(tmp_path / "others", 90), weights)
    assert score("likeness", copies)["likeness/lpips"] == pytest.approx(0, abs=1e-6)
    assert score("likeness", others)["likeness/lpips"] > 0.01
