"""Ratios, the table and the file of results."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from benchmarks.record import Found, Line, beside, machine, number, rate_line, read, table, write
from benchmarks.stopwatch import Timing

from siamese_diffusion.core.artifacts import atomic_write_json


def test_a_ratio_above_one_is_better_whichever_way_the_unit_points() -> None:
    slow, fast = Line("slow", 2.0, "images/s"), Line("fast", 5.0, "images/s")
    assert beside(fast, slow).ratio == 2.5
    large, lean = Line("large", 900.0, "MB"), Line("lean", 300.0, "MB")
    assert beside(lean, large, less=True).ratio == 3.0
    assert beside(lean, large, less=True).beside == "large"


def test_the_spread_of_a_rate_is_that_of_its_repeats() -> None:
    line = rate_line("x", Timing((1.0, 2.0, 4.0), units=4), "samples/s")
    assert (line.value, line.spread) == (2.0, 3.0)


def test_numbers_keep_three_digits_below_a_thousand() -> None:
    assert [number(value) for value in (0.012345, 12.345, 12345.6)] == ["0.0123", "12.3", "12,346"]


def test_the_table_shows_ratio_target_and_remarks() -> None:
    line = beside(Line("ours", 3.0, "samples/s", 0.5), Line("theirs", 1.5, "samples/s"), target=1.3)
    text = table(Found("training_step", "How fast?", (line,), ("micro-batch 4",)))
    assert text.splitlines()[0] == "training step"
    assert "2.00 x" in text and "1.3 x" in text and "theirs" in text
    assert text.splitlines()[-1] == "- micro-batch 4"


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    found = Found(
        "sampling", "How fast?", (Line("a", 1.0, "images/s", 0.1, 2.0, "b", 8.0),), ("r",)
    )
    path = tmp_path / "results" / "performance-cpu.json"
    write(path, [found], scale="small", about=machine(torch.device("cpu")))
    scale, about, again = read(path)
    assert (scale, again) == ("small", [found])
    assert about["device"] == "cpu" and "torch" in str(about["packages"])


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    atomic_write_json(path, {"kind": "run"})
    with pytest.raises(ValueError, match=r"x\.json' holds 'run', not results of benchmarks"):
        read(path)
