"""Weights are found by hash; every refusal tells the hash and the file that is wanted."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from siamese_diffusion.core.errors import WeightsError
from siamese_diffusion.metrics.weight_files import KnownFile, find_weights, folder_sha256

RIGHT = hashlib.sha256(b"right").hexdigest()
KNOWN = (KnownFile("trunk-1234.pth", RIGHT[:8]), KnownFile("other.pth", "f" * 64))


def test_a_file_or_the_right_file_of_a_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(b"wrong")
    (tmp_path / "b.pth").write_bytes(b"right")
    (tmp_path / "c.txt").write_bytes(b"right")
    assert find_weights(tmp_path, KNOWN, what="x") == (tmp_path / "b.pth", RIGHT)
    assert find_weights(tmp_path / "b.pth", KNOWN, what="x")[1] == RIGHT


def test_wrong_hash_is_told_with_the_hashes_that_are_wanted(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(b"wrong")
    wrong = hashlib.sha256(b"wrong").hexdigest()[:8]
    with pytest.raises(WeightsError, match=rf"net: .*a\.pth' has SHA-256 {wrong}\.\.\.") as error:
        find_weights(tmp_path / "a.pth", KNOWN, what="net")
    assert f"trunk-1234.pth (SHA-256 {RIGHT[:8]}...) or other.pth" in str(error.value.hint)
    with pytest.raises(WeightsError, match=rf"net: .* holds 'a\.pth' \({wrong}\.\.\.\)"):
        find_weights(tmp_path, KNOWN, what="net")


def test_missing_file_and_empty_folder_are_told(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"net: '.*nowhere' does not exist"):
        find_weights(tmp_path / "nowhere", KNOWN, what="net")
    with pytest.raises(WeightsError, match=r"holds no weights file"):
        find_weights(tmp_path, KNOWN, what="net")


def test_hash_of_a_folder_covers_weights_and_settings(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(WeightsError, match=r"holds a config.json but no weights"):
        folder_sha256(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"1")
    first = folder_sha256(tmp_path)
    (tmp_path / "README.md").write_text("no matter")
    assert folder_sha256(tmp_path) == first
    (tmp_path / "preprocessor_config.json").write_text("{}")
    second = folder_sha256(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"2")
    assert len({first, second, folder_sha256(tmp_path)}) == 3


def test_a_folder_of_something_else_is_told(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"is no folder of a transformers model"):
        folder_sha256(tmp_path)
