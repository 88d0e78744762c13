"""Sizes and names of files, and what must not be written in them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MOST_LINES = 400
MOST_BYTES = 500_000
CATCH_ALL = {"utils.py", "util.py", "common.py", "misc.py", "helpers.py"}
# The only big files: the weights of the embedded bases.
WEIGHTS = ("src/siamese_diffusion/bases/", ".safetensors")
# Folders of single machines; put together so that this file does not hold them itself.
MACHINES = tuple(f"/{folder}/" for folder in ("work", "home", "root", "Users"))


@pytest.fixture(scope="module")
def tracked() -> list[Path]:
    """Files of the checkout; outside of one there is nothing to look at."""
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    files = [ROOT / name for name in done.stdout.split("\0") if name]
    assert ROOT / "pyproject.toml" in files
    return [path for path in files if path.is_file()]


def test_python_files_stay_readable_in_one_sitting(tracked: list[Path]) -> None:
    long = {
        path.relative_to(ROOT).as_posix(): lines
        for path in tracked
        if path.suffix == ".py"
        and (lines := len(path.read_text(encoding="utf-8").splitlines())) > MOST_LINES
    }
    assert long == {}, f"split files of more than {MOST_LINES} lines"


def test_no_file_is_a_catch_all(tracked: list[Path]) -> None:
    assert [path for path in tracked if path.name in CATCH_ALL] == []


def test_only_the_embedded_weights_are_big(tracked: list[Path]) -> None:
    big = [
        path.relative_to(ROOT).as_posix() for path in tracked if path.stat().st_size > MOST_BYTES
    ]
    folder, suffix = WEIGHTS
    assert [name for name in big if not (name.startswith(folder) and name.endswith(suffix))] == []


def test_no_file_names_a_folder_of_one_machine(tracked: list[Path]) -> None:
    found = []
    for path in tracked:
        content = path.read_bytes()
        if b"\0" in content:
            continue  # pictures and weights
        text = content.decode("utf-8")
        found += [f"{path.relative_to(ROOT)}: {word}" for word in MACHINES if word in text]
    assert found == []


def test_every_package_folder_has_its_docstring(tracked: list[Path]) -> None:
    source = ROOT / "src" / "siamese_diffusion"
    for path in (path for path in tracked if path.is_relative_to(source) and path.suffix == ".py"):
        first = path.read_text(encoding="utf-8").lstrip()
        assert first.startswith('"""'), f"{path.relative_to(ROOT)} has no module docstring"
        assert (path.parent / "__init__.py").is_file()
