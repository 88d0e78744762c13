"""The demo stops where a verb stops."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import demo


@pytest.mark.parametrize("code", [2, 75])
def test_a_verb_that_fails_ends_the_demo_with_its_code(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(command: list[str], *, check: bool) -> None:
        raise subprocess.CalledProcessError(code, command)

    monkeypatch.setattr(subprocess, "run", failing)
    monkeypatch.setattr(sys, "argv", ["demo.py", "--out", str(tmp_path / "demo")])
    with pytest.raises(SystemExit) as stopped:
        demo.main()
    assert stopped.value.code == code
