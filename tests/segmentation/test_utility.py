from __future__ import annotations

import json
from pathlib import Path

import pytest

from segmentation.sets import write_run, write_synthetic
from siamese_diffusion.core.errors import ConfigError, DataError, OutputError
from siamese_diffusion.core.folders import UtilityPaths
from siamese_diffusion.data.pairs import PairFolder
from siamese_diffusion.segmentation import utility
from siamese_diffusion.segmentation.fitting import run_segment
from siamese_diffusion.segmentation.utility import measure_utility
from siamese_diffusion.segmentation.utility_curve import Curve, conclusions

TINY = ["inputs.size=64", "network.width=4", "train.batch_size=4", "train.steps=2"]


@pytest.fixture(scope="module")
def synthetic(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    real = PairFolder.open(phantoms, split="train")
    root = tmp_path_factory.mktemp("sets")
    return write_synthetic(root / "s", real, folds=2, run=write_run(root / "run", real))


def measure(real: Path, synthetic: Path, out: Path, **changes: object) -> Curve:
    options: dict[str, object] = {"folds": [1], "seeds": 2, "baselines": False, **changes}
    return measure_utility(
        "unet",
        real,
        [synthetic],
        out,
        preset="small",
        overrides=TINY,
        device="cpu",
        quiet=True,
        **options,  # type: ignore[arg-type]
    )


def test_a_killed_curve_goes_on_with_the_missing_cells(
    phantoms: Path, synthetic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[str] = []

    def counted(plan: object, out: Path, **rest: object) -> Path:
        if len(trained) == 3 and out.name not in trained:
            trained.append("killed")
            raise KeyboardInterrupt
        trained.append(out.name)
        return run_segment(plan, out, **rest)  # type: ignore[arg-type]

    monkeypatch.setattr(utility, "run_segment", counted)
    with pytest.raises(KeyboardInterrupt):
        measure(phantoms, synthetic, tmp_path / "u")
    assert not UtilityPaths(tmp_path / "u").result.exists()
    curve = measure(phantoms, synthetic, tmp_path / "u")
    cells = ["real-0-seed0", "real-0-seed1", "real-masks-1-seed0", "real-masks-1-seed1"]
    assert trained == [*cells[:3], "killed", cells[3]]
    assert [(p.arm, p.folds, len(p.by_seed)) for p in curve.points] == [
        ("real", 0.0, 2),
        ("real masks", 1.0, 2),
    ]
    stored = json.loads(UtilityPaths(tmp_path / "u").result.read_text())
    assert stored["measure"] == "sweep_fg" and stored["curve"]["n_images"] == 3
    assert stored["conclusions"] == conclusions(curve)
    cell = json.loads(UtilityPaths(tmp_path / "u").cell_result(cells[2]).read_text())
    assert cell["trained_on"]["composition"] == {"real": 14, "synthetic": 14}
    values = [i["mask"]["sweep_fg"][0] for i in cell["sets"]["test"]["images"]]
    assert curve.points[1].by_seed[0] == pytest.approx(sum(values) / 3)
    assert "real masks" in UtilityPaths(tmp_path / "u").page.read_text()
    with pytest.raises(OutputError, match=r"holds another curve: seeds: 2 -> 1"):
        measure(phantoms, synthetic, tmp_path / "u", seeds=1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"folds": [0]}, "--folds has no value above 0"),
        ({"folds": [1, -2]}, "--folds -2 is out of range"),
        ({"folds": [3]}, "asks for 42 synthetic pairs"),
        ({"seeds": 0}, "--seeds 0 is out of range"),
        ({"protocol": "isic-unet"}, "'isic-unet' has no score of its own for each image"),
        ({"protocol": "all"}, "'all' has no score of its own for each image"),
    ],
)
def test_impossible_curves_are_refused_before_anything_is_trained(
    phantoms: Path, synthetic: Path, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        measure(phantoms, synthetic, tmp_path / "u", **changes)
    assert not (tmp_path / "u").exists()


def test_unknown_test_lists_and_folders_of_something_else_are_refused(
    phantoms: Path, synthetic: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"no split list 'tests\.txt'"):
        measure(phantoms, synthetic, tmp_path / "u", splits=["tests"])
    (tmp_path / "u").mkdir()
    (tmp_path / "u" / "notes").write_text("mine")
    with pytest.raises(OutputError, match="is not empty and holds no utility curve"):
        measure(phantoms, synthetic, tmp_path / "u")


def test_a_set_without_manifest_is_called_by_its_folder(phantoms: Path, tmp_path: Path) -> None:
    real = PairFolder.open(phantoms, split="train")
    first = write_synthetic(tmp_path / "mine", real, manifest=False)
    second = write_synthetic(tmp_path / "random", real, recipe="random")
    assert list(utility._labelled([first, second])) == ["mine", "random masks"]
    third = write_synthetic(tmp_path / "real", real, manifest=False)
    with pytest.raises(ConfigError, match="the synthetic sets real cannot be told apart"):
        utility._labelled([third])
