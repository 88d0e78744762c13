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


def test_audits_are_done_once_and_at_a_rate_that_the_hold_out_supports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[tuple[str, ...]] = []
    monkeypatch.setattr(demo, "siamdiff", lambda *arguments: done.append(arguments))
    (tmp_path / "val.txt").write_text("a\nb\nc\n")
    demo.audit_images(tmp_path, tmp_path / "made", tmp_path / "audit")
    assert [arguments[1] for arguments in done] == ["alignment", "memorisation"]
    rate = float(done[1][-1].removeprefix("rate="))
    assert 0.25 <= rate < 0.26  # 3 hold-out images support 1 / 4
    (tmp_path / "audit").mkdir()
    for name in ("alignment", "memorisation"):
        (tmp_path / f"audit/{name}.json").write_text("{}")
    demo.audit_images(tmp_path, tmp_path / "made", tmp_path / "audit")
    assert len(done) == 2


@pytest.mark.parametrize(("images", "mixing"), [(9, False), (10, True)])
def test_neighbours_are_asked_for_only_where_there_are_enough_images(
    images: int, mixing: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[tuple[str, ...]] = []
    monkeypatch.setattr(demo, "siamdiff", lambda *arguments: done.append(arguments))
    made = tmp_path / "made"
    (made / "images").mkdir(parents=True)
    for number in range(images):
        (made / f"images/{number}.png").touch()
    demo.score_images(tmp_path, made, tmp_path / "score.json")
    assert ("fid,kid,prdc,mixing" in done[0]) is mixing
    assert bool(demo.plot_plane(tmp_path, made, tmp_path / "tsne.png")) is mixing
    assert "fidelity=random" in done[-1]  # no weights are asked for
