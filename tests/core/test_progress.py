"""The progress bar: lines in a log file, a bar on a terminal, silence when not wanted."""

from __future__ import annotations

import sys
import time

import pytest

from siamese_diffusion.core.progress import ProgressBar


def test_without_a_terminal_the_end_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressBar("fit", 3) as bar:
        for done in range(1, 4):
            bar.advance_to(done, {"mask": 0.25})
    assert capsys.readouterr().err == "fit: 3/3  mask 0.2500\n"


def test_long_work_is_told_every_half_minute(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with ProgressBar("fit", 100) as bar:
        for done in range(1, 100):
            now[0] += 1.0
            bar.advance_to(done)
    said = [line.split()[1] for line in capsys.readouterr().err.splitlines()]
    assert said == ["31/100", "62/100", "93/100"]


def test_a_disabled_bar_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressBar("fit", 1, enabled=False) as bar:
        bar.advance_to(1)
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar_and_standard_output_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with ProgressBar("latents", 2) as bar:
        bar.advance_to(2, {"loss": 1.0})
    said = capsys.readouterr()
    assert "latents" in said.err and "2/2" in said.err
    assert said.out == ""
