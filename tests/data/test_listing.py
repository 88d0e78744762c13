"""Names and lists of a folder, without raising."""

from __future__ import annotations

from pathlib import Path

import pytest

from siamese_diffusion.core.errors import DataError
from siamese_diffusion.data.listing import collect, list_folder, read_split, some, split_lists


def test_listing_reports_and_does_not_raise(tmp_path: Path) -> None:
    listing = list_folder(tmp_path / "nowhere")
    assert listing.pairs == []
    assert "does not exist" in listing.problems[0]


def test_split_lists_leave_out_prompts_and_notes(tmp_path: Path) -> None:
    for name in ("train", "val", "prompt", "README", "LICENSE"):
        (tmp_path / f"{name}.txt").touch()
    assert split_lists(tmp_path) == ["train", "val"]


def test_stems_with_dots_survive_a_split_list(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("a.1\nb.2.png\n")
    assert read_split(tmp_path, "train") == ["a.1", "b.2"]


def test_split_list_that_is_not_text_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(DataError, match=r"train\.txt' cannot be read"):
        read_split(tmp_path, "train")


def test_five_names_are_shown_in_full() -> None:
    assert some(list("abcde")) == "a, b, c, d, e"
    assert some(list("abcdefg")) == "a, b, c, d, e and 2 more"


def test_collect_keeps_the_order_and_joins_errors() -> None:
    assert collect(lambda x: x * x, range(20)) == [x * x for x in range(20)]

    def refuse(number: int) -> None:
        raise DataError(f"no {number}", hint="mend it")

    with pytest.raises(DataError, match=r"(?s)no 0\nno 1.*no 4\nand 2 more\nhint: mend it"):
        collect(refuse, range(7))
