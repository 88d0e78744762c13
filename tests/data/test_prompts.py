"""Prompts of a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from siamese_diffusion.data.prompts import default_prompt, read_index, read_prompt


@pytest.mark.parametrize(
    ("name", "prompt"),
    [
        ("polyp", "A photo of a polyp."),
        ("magnetic-tile", "A photo of a magnetic tile."),
        ("skin_lesion", "A photo of a skin lesion."),
        ("isic2018", "A photo of an isic2018."),
    ],
)
def test_default_prompt_comes_from_the_folder_name(name: str, prompt: str) -> None:
    assert default_prompt(Path("/data") / name) == prompt


def test_prompt_file_must_hold_one_line(tmp_path: Path) -> None:
    problems: list[str] = []
    (tmp_path / "prompt.txt").write_text("\n  A polyp.  \n\n")
    assert read_prompt(tmp_path, problems) == "A polyp."
    assert problems == []
    (tmp_path / "prompt.txt").write_text("one\ntwo\n")
    read_prompt(tmp_path, problems)
    assert "prompt.txt' must hold one line of text, it holds 2" in problems[0]


def test_prompt_file_that_is_not_text_is_a_problem(tmp_path: Path) -> None:
    problems: list[str] = []
    (tmp_path / "prompt.txt").write_bytes(b"\xff\xfe")
    read_prompt(tmp_path, problems)
    assert "prompt.txt' cannot be read as UTF-8 text" in problems[0]


def test_no_index_is_none(tmp_path: Path) -> None:
    assert read_index(tmp_path, []) is None


@pytest.mark.parametrize("as_list", [True, False])
def test_index_is_read_as_lines_or_as_one_list(tmp_path: Path, as_list: bool) -> None:
    one = '{"source": "m/1.png", "target": "i/1.png", "prompt": "A."}'
    two = '{"source": "m/2.png"}'
    text = f"[{one}, {two}]" if as_list else f"{one}\n\n{two}\n"
    (tmp_path / "prompt.json").write_text(text)
    lines = read_index(tmp_path, [])
    assert lines is not None
    assert (lines[0].mask, lines[0].image) == (tmp_path / "m/1.png", tmp_path / "i/1.png")
    assert (lines[0].prompt, lines[1].prompt, lines[1].image) == ("A.", None, None)


def test_wrong_lines_of_an_index_are_numbered(tmp_path: Path) -> None:
    problems: list[str] = []
    (tmp_path / "prompt.json").write_text('{"source": 3}\n{"prompt": "x"}\n[1\n')
    assert read_index(tmp_path, problems) == []
    assert "line 1: 'source' is not text" in problems[0]
    assert "line 2: neither 'source' nor 'target'" in problems[0]
    assert "line 3 is not a JSON object" in problems[0]
