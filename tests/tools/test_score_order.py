"""The ordering tool on phantoms, with random features."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

import score_order


def test_sets_are_disjoint_and_blurred_copies_share_their_names(
    phantoms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    score_order.main(
        [
            str(phantoms), "--out", str(tmp_path), "--images", "10", "--metrics", "kid,mixing",
            "--paired", "", "--set", "fidelity=random", "--set", "size=64",
            "--set", "bootstrap=0",
        ]
    )  # fmt: skip
    names = {n: {p.name for p in (tmp_path / n / "images").iterdir()} for n in ("a", "b", "blur3")}
    assert len(names["a"]) == len(names["b"]) == 10
    assert not names["a"] & names["b"]
    assert names["a"] == names["blur3"]
    name = min(names["a"])
    sharp, blurred = (Image.open(tmp_path / n / "images" / name) for n in ("a", "blur3"))
    assert sharp.tobytes() != blurred.tobytes()
    last = capsys.readouterr().out.rstrip().splitlines()[-3:]
    assert last[0].split() == ["metric", "b", "blur1", "blur3"]
    assert [line.split()[0] for line in last[1:]] == ["kid", "mixing"]
