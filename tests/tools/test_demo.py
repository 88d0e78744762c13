"""The demo stops where a verb stops."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import demo
from siamese_diffusion.core.folders import AuditPaths


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
    paths = AuditPaths(tmp_path / "audit")
    paths.root.mkdir()
    for path in (paths.alignment, paths.memorisation):
        path.write_text("{}")
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


@pytest.mark.parametrize(
    ("gain", "half", "verdict"),
    [(0.01, 0.02, "no clear difference"), (0.03, 0.02, "a gain"), (-0.03, 0.02, "a loss")],
)
def test_the_use_of_synthetic_pairs_is_said_as_it_is(
    gain: float, half: float, verdict: str
) -> None:
    numbers: dict[str, object] = {
        "n_unseen": 60,
        "n_real": 168,
        "n_synthetic": 36,
        "dice_real_only": 0.6,
        "dice_real_and_synthetic": 0.6 + gain,
        "gain": gain,
        "gain_half_width": half,
    }
    said = demo.use_in_words(numbers)
    assert f"{verdict} ({gain:+.3f}, 95 % over images {gain - half:+.3f} to" in said


def test_use_is_measured_once_on_unseen_pairs(
    phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "USE_STEPS", 2)
    monkeypatch.setattr(demo, "USE_SIZE", 16)
    target = tmp_path / "use.json"
    numbers = demo.measure_use(phantoms, phantoms, phantoms, target)
    n = len(list((phantoms / "images").iterdir()))
    assert numbers["n_unseen"] == numbers["n_synthetic"] == n
    seeds = numbers["gain_by_seed"]
    assert isinstance(seeds, list) and len(seeds) == 2
    assert numbers["gain"] == pytest.approx(sum(seeds) / 2)
    before = target.read_bytes()
    assert demo.measure_use(phantoms, phantoms, phantoms, target) == numbers
    assert target.read_bytes() == before
