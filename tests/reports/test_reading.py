"""Reading what runs and sets left on disk, whole or not."""

from __future__ import annotations

from pathlib import Path

import pytest

from siamese_diffusion.core.errors import OutputError
from siamese_diffusion.reports.reading import (
    float_of,
    int_of,
    list_of,
    optional_json,
    optional_yaml,
    read_records,
    torn_remark,
)


def test_torn_lines_are_counted_wherever_they_are(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1}\n{"st\n\n[2]\n{"step": 3}\n{"step"')
    records, torn = read_records(path)
    assert records == [{"step": 1}, {"step": 3}]
    assert torn == 2
    assert torn_remark(path, torn) == ("2 unreadable lines of log.jsonl were skipped.",)
    assert torn_remark(path, 0) == ()


def test_files_that_are_not_there_are_empty(tmp_path: Path) -> None:
    assert read_records(tmp_path / "no") == ([], 0)
    assert optional_json(tmp_path / "no") is None
    assert optional_yaml(tmp_path / "no") == {}


def test_damaged_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("{")
    with pytest.raises(OutputError, match=r"a\.json' is not readable JSON"):
        optional_json(path)
    path.write_text("a: [")
    with pytest.raises(OutputError, match=r"a\.json' is not readable YAML"):
        optional_yaml(path)


def test_values_that_must_be_there_are_told_when_they_are_not() -> None:
    assert (list_of([1]), float_of(2), int_of(3.0)) == ([1], 2.0, 3)
    with pytest.raises(TypeError, match=r"a list is expected, not 'none'"):
        list_of("none")
    for value in (None, True, float("nan"), "2"):
        with pytest.raises(TypeError, match="a number is expected"):
            float_of(value)
