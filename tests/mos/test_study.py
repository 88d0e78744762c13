"""Reading a study strictly: altered files, forged plans, foreign keys."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mos.rating import make_study, tokens
from siamese_diffusion.core.errors import DataError
from siamese_diffusion.mos.prepare import Prepared
from siamese_diffusion.mos.study import Study, open_key


def alter(prepared: Prepared, change: Callable[[dict[str, Any]], None]) -> None:
    path = prepared.study / "study.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_only_the_token_of_a_link_finds_its_rater(prepared: Prepared, study: Study) -> None:
    found = [study.rater_of(token) for token in tokens(prepared)]
    assert [plan.rater for plan in found if plan is not None] == ["rater-1", "rater-2", "rater-3"]
    for wrong in ("", "x", tokens(prepared)[0][:-1], study.record.raters[0].token_sha256, "\ud800"):
        assert study.rater_of(wrong) is None


def test_folder_without_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is not a study folder \(no study\.json\)"):
        Study.open(tmp_path)


def test_altered_missing_and_linked_images_are_refused(prepared: Prepared, tmp_path: Path) -> None:
    first, second, third = sorted((prepared.study / "images").iterdir())[:3]
    first.write_bytes(first.read_bytes() + b"x")
    second.unlink()
    outside = tmp_path / "outside.png"
    third.rename(outside)
    third.symlink_to(outside)
    with pytest.raises(DataError, match="3 of 12 images of study"):
        Study.open(prepared.study)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda c: c["items"].update({"../../etc/passwd": "0" * 64}),
            r"item '\.\./\.\./etc/passwd' is not 16 hexadecimal",
        ),
        (lambda c: c["raters"][0]["order"].append("f" * 16), "rater-1 names unknown item 'ffff"),
        (
            lambda c: c["raters"][1].update(token_sha256=c["raters"][0]["token_sha256"]),
            "token '[0-9a-f]+' is used by several raters",
        ),
        (lambda c: c.update(suffix="/../key.json"), r"suffix '/\.\./key\.json'"),
        (lambda c: c.update(format=9), "format 9; this version reads 1"),
        (lambda c: c.update(extra=1), "extra: Extra inputs are not permitted"),
        (lambda c: c.update(raters=[]), "needs items and raters"),
    ],
)
def test_forged_plans_are_refused(
    prepared: Prepared, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    alter(prepared, change)
    with pytest.raises(DataError, match=message):
        Study.open(prepared.study)


def test_torn_plan_is_refused(prepared: Prepared) -> None:
    (prepared.study / "study.json").write_text('{"format": 1')
    with pytest.raises(DataError, match="not readable JSON"):
        Study.open(prepared.study)


def test_key_of_another_study_is_refused(study: Study, tmp_path: Path) -> None:
    other = make_study(tmp_path / "other")
    with pytest.raises(DataError, match=f"not of {study.record.study}"):
        open_key(other.key, study)
    with pytest.raises(DataError, match=r"no key at '.*nowhere'"):
        open_key(tmp_path / "nowhere", study)
