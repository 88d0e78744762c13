"""Segmenters, curves, comparisons and artefacts on the page, from files of small real runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from invoking import siamdiff
from reports.test_html import Page, read
from segmentation.sets import write_run, write_synthetic
from siamese_diffusion.comparison.scores import HEADINGS
from siamese_diffusion.comparison.table import Row, markdown
from siamese_diffusion.core.errors import DataError, OutputError
from siamese_diffusion.core.folders import ComparePaths, SegmenterPaths, UtilityPaths
from siamese_diffusion.data.pairs import PairFolder
from siamese_diffusion.reports import write_report
from siamese_diffusion.segmentation.evaluation import evaluate
from siamese_diffusion.segmentation.fitting import fit_segmenter
from siamese_diffusion.segmentation.utility import measure_utility
from siamese_diffusion.segmentation.utility_curve import paired_gain

TINY = ["inputs.size=64", "network.width=4", "train.batch_size=4", "train.steps=2"]
SPLITS = ("test", "val")


@pytest.fixture(scope="module")
def results(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Results of a segmenter on real pairs and of one that saw each of them twice."""
    root = tmp_path_factory.mktemp("segmenters")
    files = []
    for name, twice in (("real", False), ("twice", True)):
        run = fit_segmenter(
            *("unet", phantoms, root / name),
            preset="small", overrides=TINY, copy_paste=twice, device="cpu", quiet=True,
        )  # fmt: skip
        files.append(root / f"{name}.json")
        evaluate(run, phantoms, files[-1], splits=SPLITS, resamples=50, device="cpu", quiet=True)
    return files


@pytest.fixture(scope="module")
def curve(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("curve")
    real = PairFolder.open(phantoms, split="train")
    made = write_synthetic(root / "s", real, folds=1, run=write_run(root / "run", real))
    measure_utility(
        *("unet", phantoms, [made], root / "curve"),
        folds=[1], seeds=2, preset="small", overrides=TINY, device="cpu", quiet=True,
    )  # fmt: skip
    return root / "curve"


@pytest.fixture
def comparison(tmp_path: Path) -> Path:
    paths = ComparePaths(tmp_path / "<compared>")
    paths.root.mkdir()
    rows = [
        Row(name, {"alignment/dice": dice}, {"step_seconds": [0.25] * len(dice)})
        for name, dice in (("siamese", [0.5, 0.75]), ("controlnet", [0.25, 0.5]))
    ]
    numbers = {row.generator: {"scores": row.scores, "costs": row.costs} for row in rows}
    paths.table.write_text(markdown(rows, HEADINGS, reference="siamese"), encoding="utf-8")
    paths.numbers.write_text(json.dumps(numbers))
    paths.record.write_text(json.dumps({"kind": "comparison", "fixed": {"scale": "small"}}))
    Image.new("RGB", (120, 60)).save(paths.panel)
    return paths.root


def edited(path: Path, out: Path, **changes: object) -> Path:
    out.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return out


def page(sources: list[Path], out: Path) -> Page:
    return read(write_report(sources, out, pairing=paired_gain))


def test_every_definition_of_a_segmenter_stands_on_the_page(
    results: list[Path], tmp_path: Path
) -> None:
    shown = page([results[0]], tmp_path / "r.html").text
    content = json.loads(results[0].read_text())
    for place in [*content["sets"].values(), {"scores": content["overall"]}]:
        for size in ("mask", "network"):
            for definition, score in place["scores"][size].items():
                low, high = score["dice_interval"]
                cell = f"{100 * score['dice']:.1f} ({100 * low:.1f} to {100 * high:.1f})"
                assert definition in shown and cell in shown
    assert f"{content['parameters']:,}" in shown
    assert "trained on 14 real pairs" in shown
    assert "No test pair was found among the pairs" in shown


def test_the_worst_cases_are_pictures_with_their_dice(results: list[Path], tmp_path: Path) -> None:
    found = page([results[0]], tmp_path / "r.html")
    for name in SPLITS:
        test = json.loads(results[0].read_text())["sets"][name]
        dice = {i["stem"]: i["mask"]["sweep_fg"][0] for i in test["images"]}
        for stem in test["worst"]:
            assert f"{stem} phantom Dice {100 * dice[stem]:.1f} %" in found.text
    shown = [a.get("alt") or "" for tag, a in found.tags if tag == "img"]
    assert sum(alt.startswith("Test image") for alt in shown) == 6


def test_a_lost_picture_of_worst_cases_is_told(results: list[Path], tmp_path: Path) -> None:
    moved = edited(results[0], tmp_path / "moved.json")
    assert "The worst cases of test are not shown" in page([moved], tmp_path / "r.html").text


def test_two_segmenters_of_the_same_lists_stand_side_by_side(
    results: list[Path], tmp_path: Path
) -> None:
    shown = page(results, tmp_path / "r.html").text
    assert "14 real pairs, each 2 times" in shown
    values = []
    for path in results:
        sets = json.loads(path.read_text())["sets"]
        values.append([i["mask"]["sweep_fg"][0] for s in SPLITS for i in sets[s]["images"]])
    gain = 100 * float(np.mean(np.subtract(values[1], values[0])))
    assert f"twice against real: {gain:+.1f} (" in shown
    alone = write_report(results, tmp_path / "without.html")
    assert "Not computed." in read(alone).text


def test_an_overridden_leakage_guard_is_told_in_plain_sight(
    results: list[Path], tmp_path: Path
) -> None:
    content = json.loads(results[0].read_text())
    stem = content["sets"]["test"]["images"][0]["stem"]
    content["sets"]["test"]["overlap"] = {"are trained on": [stem]}
    leaked = edited(results[0], tmp_path / "l.json", sets=content["sets"], overlap_allowed=True)
    shown = page([leaked], tmp_path / "r.html").text
    assert "Not a fair test: 1 test pairs went into this segmenter" in shown
    assert "1 of test are trained on" in shown


def test_a_curve_comes_with_its_conclusion_and_gains(curve: Path, tmp_path: Path) -> None:
    found = page([curve], tmp_path / "r.html")
    content = json.loads(UtilityPaths(curve).result.read_text())
    for line in content["conclusions"]:
        assert line in found.text
    for point in content["curve"]["points"]:
        assert f"{100 * point['score']:.2f}" in found.text
        if point["gain"]:
            assert f"{100 * point['gain']['mean']:+.2f}" in found.text
    assert any(tag == "svg" for tag, _ in found.tags)


def test_a_comparison_comes_with_its_tables_and_panel(comparison: Path, tmp_path: Path) -> None:
    found = page([comparison], tmp_path / "r.html")
    assert "siamese, controlnet" in found.text and "mask Dice ↑" in found.text
    assert "0.625" in found.text and "mask Dice, less siamese" in found.text
    assert "<compared>" in found.text  # as text: a tag of that name would not close
    assert any("Columns of masks" in (a.get("alt") or "") for t, a in found.tags if t == "img")


def test_artefacts_come_with_the_farthest_images(phantoms: Path, tmp_path: Path) -> None:
    made = tmp_path / "made/images"
    made.mkdir(parents=True)
    Image.new("RGB", (64, 64), (128, 128, 128)).save(made / "blank.png")
    real = PairFolder.open(phantoms)
    for pair in real.pairs[:3]:
        assert pair.image is not None
        Image.open(pair.image).save(made / f"{pair.stem}.png")
    audit = tmp_path / "audit"
    done = siamdiff(
        *("audit", "artefacts", "--real", phantoms, "--synthetic", made.parent),
        *("--out", audit, "--set", "rate=0.1"),
    )
    assert done.code == 0, done.err
    content = json.loads((audit / "artefacts.json").read_text())
    found = page([audit], tmp_path / "r.html")
    assert f"{len(content['listed'])} of 4 images" in found.text
    assert found.text.index("blank synthetic") < found.text.index(real.stems[0])
    assert "Out of date" not in found.text
    Image.new("RGB", (64, 64)).save(made / "blank.png")
    assert "Out of date" in page([audit], tmp_path / "r.html").text


@pytest.mark.parametrize("which", ["segmenter", "curve", "comparison"])
def test_damaged_results_are_refused_by_name(
    results: list[Path], curve: Path, comparison: Path, tmp_path: Path, which: str
) -> None:
    if which == "segmenter":
        source = edited(results[0], tmp_path / "bad.json", sets={"test": {"n": 3}})
    elif which == "curve":
        source = edited(UtilityPaths(curve).result, tmp_path / "bad.json", curve={"points": []})
    else:
        source = comparison
        ComparePaths(comparison).table.write_text("| method |\n| --- | --- |\n")
    with pytest.raises(OutputError, match=r"is damaged or of another version"):
        write_report([source], tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()


def test_what_is_not_finished_names_the_command_that_goes_on(
    curve: Path, comparison: Path, results: list[Path], tmp_path: Path
) -> None:
    unfinished = UtilityPaths(tmp_path / "u")
    unfinished.root.mkdir()
    unfinished.plan.write_text(UtilityPaths(curve).plan.read_text())
    ComparePaths(comparison).numbers.unlink()
    run = SegmenterPaths(results[0].with_suffix(""))
    for source, told in (
        (unfinished.root, "a utility curve that is not finished"),
        (comparison, "no method is finished yet"),
        (run.root, "it has not been scored"),
    ):
        with pytest.raises(DataError, match=told):
            write_report([source], tmp_path / "r.html")
