"""Every script runs on the CPU at small width and gives numbers."""

from __future__ import annotations

import argparse
import importlib
import math

import numpy as np
import pytest
import torch
from benchmarks.__main__ import SCRIPTS, result_path
from benchmarks.paper_training import training_minutes
from benchmarks.sampling import differences
from benchmarks.workload import workload


def asked() -> argparse.Namespace:
    return argparse.Namespace(device="cpu", small=True, size=32, repeats=1)


def test_a_third_of_the_training_runs_at_the_rate_before_k_tau() -> None:
    assert training_minutes(80.0, 80.0) == pytest.approx(30.0)
    assert training_minutes(80.0, 40.0) == pytest.approx(50.0)


def test_images_are_compared_in_grey_levels_without_wrapping() -> None:
    black, white = np.zeros((1, 2, 2, 3), np.uint8), np.full((1, 2, 2, 3), 255, np.uint8)
    assert differences(black, white) == differences(white, black) == (255.0, 255.0)


def test_targets_are_for_full_size_on_a_gpu_alone() -> None:
    assert workload(asked()).target(5.0) is None


def test_results_of_small_runs_have_a_file_of_their_own() -> None:
    assert result_path("cpu", small=True).name == "performance-cpu-small.json"
    assert result_path("cuda", small=False).name == "performance-cuda.json"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_told_before_anything_is_built() -> None:
    with pytest.raises(SystemExit, match=r"--device cuda, but this PyTorch .* finds no GPU"):
        workload(argparse.Namespace(device="cuda", small=False, size=None, repeats=None))


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_the_script_gives_finite_numbers(name: str) -> None:
    found = importlib.import_module(f"benchmarks.{name}").measure(workload(asked()))
    assert found.name == name and found.lines
    assert all(math.isfinite(line.value) for line in found.lines)
    assert not any("OUTSIDE" in remark for remark in found.remarks)
