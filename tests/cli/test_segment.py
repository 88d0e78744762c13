"""The verbs of segmentation: what they print, what they write, and their exit codes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from siamese_diffusion.cli.main import main
from siamese_diffusion.data.pairs import PairFolder

TINY = (
    "--preset small --device cpu --set inputs.size=64 --set network.width=4 "
    "--set train.batch_size=4 --set train.steps=2"
)


def siamdiff(line: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run a command line in this process and return its exit code."""
    monkeypatch.setattr(sys, "argv", ["siamdiff", *line.split()])
    with pytest.raises(SystemExit) as stopped:
        main()
    return int(stopped.value.code or 0)


def test_fit_evaluate_and_predict_work_together(
    phantoms: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run, masks = tmp_path / "run", tmp_path / "masks"
    fit = f"segment fit --model unet --real {phantoms} --out {run} --seed 3 {TINY}"
    assert siamdiff(fit, monkeypatch) == 0
    evaluate = f"segment evaluate {run} --data {phantoms} --split test --protocol polyp"
    assert siamdiff(f"{evaluate} --resamples 50", monkeypatch) == 0
    out = capsys.readouterr().out
    result = json.loads((run / "result.json").read_text())
    (row,) = result["protocols"]["polyp"]["sets"]
    assert f"{100 * row['mdice']:.2f}" in out and str(run / "result.json") in out
    assert result["bootstrap"]["resamples"] == 50
    predict = f"segment predict {run} --images {phantoms} --split test --out {masks}"
    assert siamdiff(predict, monkeypatch) == 0
    stems = PairFolder.open(phantoms, split="test").stems
    assert {p.stem for p in masks.iterdir()} == set(stems)
    assert set(np.unique(np.array(Image.open(masks / f"{stems[0]}.png")))) <= {0, 255}


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("segment fit --model unett --real {d} --out {o}", "unknown segmenter 'unett'"),
        ("segment fit --model unet --real {d} --out {o} --ratio 1", "--ratio needs a synthetic"),
        ("segment fit --model unet --real {d} --out {o} --set inputs.sise=64", "'inputs.sise'"),
        ("segment fit --model unet --real {o} --out {o}", "does not exist"),
        ("segment fit --model unet --real {d} --out {o} --device gpu", "unknown device 'gpu'"),
        ("segment evaluate {o} --data {d} --device gpu", "unknown device 'gpu'"),
        ("segment evaluate {o} --data {d} --protocol dice", "unknown protocol 'dice'"),
        ("segment evaluate {d} --data {d}", "is not the run folder of a segmenter"),
        ("segment predict {d} --images {d} --out {o}", "is not the run folder of a segmenter"),
        ("utility --model unet --real {d} --synthetic {d} --out {o} --folds a,b", "'a,b'"),
        ("utility --model unet --real {d} --synthetic {d} --out {o} --folds 0", "above 0"),
    ],
)
def test_mistakes_end_with_code_2_and_one_sentence(
    line: str,
    told: str,
    phantoms: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    assert siamdiff(line.format(d=phantoms, o=out), monkeypatch) == 2
    error = capsys.readouterr().err
    assert "error: " in error and told in error
    assert not out.exists()
