"""Passports: what may differ between compared values and what may not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from siamese_diffusion.core.errors import ConfigError
from siamese_diffusion.metrics.passport import (
    FORMAT,
    Passport,
    compare,
    comparison_text,
    differences,
    read_score,
)

PASSPORT = Passport(
    metric="kid",
    protocol="paper",
    extractor="inception-768",
    extractor_sha256="a" * 64,
    resize="bicubic-384 > clean-299",
    n=100,
    m=100,
    real="b" * 64,
    synthetic="c" * 64,
    seed=0,
    settings={"kid_blocks": 100},
)


def write(path: Path, value: float, passport: Passport = PASSPORT, *, higher: bool = False) -> Path:
    content = {
        "kind": "score",
        "format": FORMAT,
        "values": [
            {
                "name": passport.metric,
                "value": value,
                "interval": [value - 1, value + 1],
                "higher_is_better": higher,
                "passport": passport.as_dict(),
            }
        ],
    }
    path.write_text(json.dumps(content))
    return path


def test_only_the_synthetic_set_may_differ() -> None:
    other = replace(PASSPORT, synthetic="d" * 64)
    assert differences(PASSPORT.as_dict(), other.as_dict()) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"protocol": "all"}, "protocol: paper / all"),
        ({"extractor": "inception-2048"}, "extractor: inception-768 / inception-2048"),
        ({"extractor_sha256": "e" * 64}, "extractor_sha256: aaaaaaaaaaaa... / eeeeeeeeeeee..."),
        (
            {"resize": "bicubic-384 > tf1-299"},
            "resize: bicubic-384 > clean-299 / bicubic-384 > tf1-299",
        ),
        ({"n": 99}, "n: 100 / 99"),
        ({"m": 50}, "m: 100 / 50"),
        ({"real": "f" * 64}, "real: bbbbbbbbbbbb... / ffffffffffff..."),
        ({"seed": 1}, "seed: 0 / 1"),
        ({"settings": {"kid_blocks": 5}}, "settings.kid_blocks: 100 / 5"),
        ({"version": 2}, "version: 1 / 2"),
    ],
)
def test_every_other_difference_refuses_the_comparison_and_is_named(
    tmp_path: Path, change: dict[str, object], told: str
) -> None:
    first = write(tmp_path / "a.json", 1)
    second = write(tmp_path / "b.json", 2, replace(PASSPORT, **change))  # type: ignore[arg-type]
    with pytest.raises(ConfigError) as error:
        compare([first, second])
    assert f"kid of '{first}' and '{second}': {told}" in error.value.message


def test_comparable_values_stand_side_by_side_and_the_best_is_marked(tmp_path: Path) -> None:
    paths = [write(tmp_path / "ours.json", 0.25), write(tmp_path / "theirs.json", 0.5)]
    (row,) = compare(paths)
    assert row.values == (0.25, 0.5)
    assert row.intervals == ((-0.75, 1.25), (-0.5, 1.5))
    lines = comparison_text(paths).splitlines()
    assert lines[0].split() == ["metric", "ours", "theirs"]
    assert lines[1].split() == ["kid", "0.25*", "0.5", "lower"]
    higher = [write(tmp_path / f"{n}.json", v, higher=True) for n, v in (("x", 1), ("y", 2))]
    assert comparison_text(higher).splitlines()[1].split() == ["kid", "1", "2*", "higher"]


def test_values_that_one_file_lacks_are_left_open(tmp_path: Path) -> None:
    first = write(tmp_path / "a.json", 1)
    second = write(tmp_path / "b.json", 2, replace(PASSPORT, metric="fid"))
    assert [row.values for row in compare([first, second])] == [(1.0, None), (None, 2.0)]


def test_a_single_file_and_foreign_files_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", 1)
    with pytest.raises(ConfigError, match=r"1 score file given"):
        comparison_text([path])
    path.write_text('{"kind": "run", "format": 1}')
    with pytest.raises(ConfigError, match=r"a\.json' is not a score file .*kind 'run'"):
        read_score(path)
