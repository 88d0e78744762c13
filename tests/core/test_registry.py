"""Lazy tables."""

from __future__ import annotations

import sys

import pytest

from siamese_diffusion.core.errors import ConfigError
from siamese_diffusion.core.registry import Registry


def test_an_entry_is_imported_only_when_it_is_asked_for() -> None:
    sys.modules.pop("colorsys", None)
    table = Registry("colour", {"rgb": "colorsys:rgb_to_hls", "none": "no_such_module:x"})
    assert list(table) == ["rgb", "none"] and len(table) == 2
    assert table.target("none") == "no_such_module:x"
    assert "colorsys" not in sys.modules
    import colorsys

    assert table["rgb"] is colorsys.rgb_to_hls


def test_an_unknown_name_is_refused_with_the_nearest_and_all() -> None:
    table = Registry("generator", {"siamese": "a:b", "controlnet": "c:d"})
    with pytest.raises(
        ConfigError, match=r"unknown generator 'siamses'; did you mean 'siamese'\?"
    ) as caught:
        table["siamses"]
    assert caught.value.hint == "choose one of: siamese, controlnet"


def test_whether_a_name_is_there_imports_and_refuses_nothing() -> None:
    table = Registry("colour", {"none": "no_such_module:x"})
    assert "none" in table
    assert "other" not in table
