"""docs/performance.md is what the files of results say."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from benchmarks.record import ROOT, Found, Line, machine, write

from benchmarks import page


def results(folder: Path, device: str, target: float | None) -> Path:
    line = Line("ours", 2.0, "images/s", 0.1, 1.5, "theirs", target)
    path = folder / f"performance-{device}.json"
    about = {**machine(torch.device("cpu")), "device": device}
    write(
        path, [Found("sampling", "How fast?", (line,), ("a remark",))], scale="a base", about=about
    )
    return path


def test_the_committed_page_is_what_the_results_say() -> None:
    files = sorted((ROOT / "results").glob("performance-*.json"))
    assert page.PAGE.read_text() == page.page(files)


def test_without_a_gpu_nothing_is_claimed_of_one(tmp_path: Path) -> None:
    text = page.page([results(tmp_path, "cpu", None)])
    assert "| ours | 2 | 0.1 | images/s | 1.50 | theirs |" in text
    assert "- a remark" in text and "Nothing is claimed" in text


def test_results_of_a_gpu_carry_the_targets(tmp_path: Path) -> None:
    text = page.page([results(tmp_path, "NVIDIA X", 1.3)])
    assert "1.50 (target 1.3)" in text and "A base; NVIDIA X" in text
    assert "Nothing is claimed" not in text


def test_a_page_written_by_hand_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    by_hand = tmp_path / "performance.md"
    by_hand.write_text("fast\n")
    monkeypatch.setattr(page, "PAGE", by_hand)
    monkeypatch.setattr(sys, "argv", ["page", "--check"])
    assert page.main() == 1
    assert f"'{by_hand}' is not what results/ says" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["page"])
    assert page.main() == 0
    monkeypatch.setattr(sys, "argv", ["page", "--check"])
    assert page.main() == 0
