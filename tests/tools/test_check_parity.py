"""Every stored number of the authors' release, computed again; a wrong one is noticed."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

import check_parity


def test_all_numbers_of_the_release_are_reproduced(shared: Path) -> None:
    folder = shared / "parity/siamese"
    lines = list(check_parity.check(folder))
    assert [line for line in lines if line.error > line.tolerance] == []
    names = {line.name for line in lines}
    inputs = {"z0", "mask", "image", "context", "eps", "t", "x_T", "uncond_context"}
    assert load_file(folder / "vectors.safetensors").keys() - inputs <= names
    assert len(names) == len(lines) > 700


def test_a_wrong_weight_is_noticed(
    shared: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for file in (shared / "parity/siamese").iterdir():
        shutil.copyfile(file, tmp_path / file.name)
    weights = load_file(tmp_path / "weights_fp16.safetensors")
    weights["control_model.zero_convs.0.0.weight"] *= 1.01
    save_file(weights, tmp_path / "weights_fp16.safetensors")
    lines = {line.name: line for line in check_parity._activations(check_parity.Problem(tmp_path))}
    assert lines["c_m.0"].error > lines["c_m.0"].tolerance
    assert lines["c_m.1"].error <= lines["c_m.1"].tolerance


def test_a_folder_without_meta_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["check_parity.py", str(tmp_path)])
    with pytest.raises(SystemExit) as stopped:
        check_parity.main()
    assert stopped.value.code == 2
    assert f"'{tmp_path}' has no meta.json" in capsys.readouterr().err


def test_the_folder_of_a_generator_is_checked_by_its_own_tool(shared: Path) -> None:
    lines = list(check_parity.lines(shared / "parity/generators/arsdm"))
    assert {line.name for line in lines} >= {"prediction", "adaptive weights"}
    assert [line for line in lines if not line.error <= line.tolerance] == []
