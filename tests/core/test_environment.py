"""What a run says it was made with."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import datetime
from importlib import metadata
from pathlib import Path

import pytest

from siamese_diffusion.core import environment
from siamese_diffusion.core.environment import command, commit, processor, snapshot, versions


def test_a_snapshot_says_when_by_what_and_on_what(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/venv/bin/siamdiff", "fit", "--data", "my polyps"])
    found = snapshot()
    assert found["command"] == "siamdiff fit --data 'my polyps'"
    assert datetime.fromisoformat(str(found["time"])).tzinfo is not None
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert json.loads(json.dumps(found)) == found
    assert set(found) == {
        "time",
        "command",
        "python",
        "platform",
        "processor",
        "cores",
        "device",
        "packages",
        "commit",
    }


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("/usr/bin/siamdiff", "siamdiff fit"),
        ("/x/src/siamese_diffusion/__main__.py", "siamdiff fit"),
        ("experiments/mine.py", "mine.py fit"),
    ],
)
def test_the_command_is_ours_only_where_it_is(
    monkeypatch: pytest.MonkeyPatch, program: str, expected: str
) -> None:
    monkeypatch.setattr(sys, "argv", [program, "fit"])
    assert command() == expected


def test_versions_are_the_installed_ones() -> None:
    found = versions()
    assert found["torch"] == metadata.version("torch")
    assert {"diffusers", "accelerate", "numpy"} <= set(found)


def test_the_processor_has_a_name() -> None:
    assert processor()


def test_looking_at_the_device_does_not_import_torch() -> None:
    code = (
        "import sys; from siamese_diffusion.core.environment import snapshot; "
        "assert snapshot()['device'] == 'cpu'; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_changed_tree_is_marked_and_no_tree_has_no_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b", *arguments],
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout.strip()

    file = tmp_path / "src" / "siamese_diffusion" / "core" / "environment.py"
    file.parent.mkdir(parents=True)
    file.touch()
    monkeypatch.setattr(environment, "__file__", str(file))
    monkeypatch.delenv("SIAMDIFF_COMMIT", raising=False)
    assert commit() is None
    monkeypatch.setenv("SIAMDIFF_COMMIT", "abc")
    assert commit() == "abc"
    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "--message", "one")
    assert commit() == git("rev-parse", "--short=12", "HEAD")
    file.write_text("changed")
    assert commit() == git("rev-parse", "--short=12", "HEAD") + "+"
