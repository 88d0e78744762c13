from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from siamese_diffusion.core.errors import DataError
from siamese_diffusion.segmentation.colour import (
    exchange,
    from_lab,
    read_sources,
    statistics,
    to_lab,
)


def picture(seed: int, low: int = 60, high: int = 180) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(low, high, (24, 20, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("rgb", "lab"),
    [
        # CIE values of sRGB primaries under D65, as tabulated (Lindbloom)
        ((255, 255, 255), (100.0, 0.0, 0.0)),
        ((0, 0, 0), (0.0, 0.0, 0.0)),
        ((255, 0, 0), (53.2408, 80.0925, 67.2032)),
        ((0, 255, 0), (87.7347, -86.1827, 83.1793)),
        ((0, 0, 255), (32.2970, 79.1875, -107.8602)),
    ],
)
def test_lab_of_the_primaries(rgb: tuple[int, ...], lab: tuple[float, ...]) -> None:
    np.testing.assert_allclose(to_lab(np.array(rgb, np.uint8)), lab, atol=0.02)


def test_lab_comes_back_to_the_same_pixels() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert np.array_equal(from_lab(to_lab(image)), image)


def test_an_exchange_with_itself_changes_nothing() -> None:
    image = picture(0)
    own = statistics(image)
    assert np.abs(exchange(image, own, own).astype(int) - image).max() <= 1


def test_the_result_has_the_others_statistics() -> None:
    image, other = picture(0), picture(1, 100, 140)
    wanted = statistics(other)
    found = statistics(exchange(image, statistics(image), wanted))
    np.testing.assert_allclose(found, wanted, atol=0.6)  # 8-bit pixels in between


def test_a_channel_without_spread_is_only_shifted() -> None:
    image = np.full((4, 4, 3), 90, np.uint8)
    other = statistics(picture(1))
    moved = exchange(image, statistics(image), other)
    assert (moved == moved[0, 0]).all()
    np.testing.assert_allclose(to_lab(moved)[0, 0], other[0], atol=0.6)


def test_values_beyond_the_range_are_clipped_and_not_wrapped() -> None:
    image = picture(0, 200, 256)
    bright = np.array([[95.0, 0.0, 0.0], [40.0, 1.0, 1.0]])
    lightness = to_lab(exchange(image, statistics(image), bright))[..., 0]
    order = np.argsort(to_lab(image)[..., 0].ravel())
    assert lightness.ravel()[order[-40:]].min() > 99  # wrapping would make the brightest dark


def test_sources_come_from_the_sets_metadata(tmp_path: Path) -> None:
    assert read_sources(tmp_path, "subset") is None
    (tmp_path / "manifest.csv").write_text("stem,subset\n1,clinicdb\ncju2,kvasir\n")
    assert read_sources(tmp_path, "subset") == {"1": "clinicdb", "cju2": "kvasir"}


def test_metadata_without_the_column_is_told(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text("stem,origin\n1,clinicdb\n")
    with pytest.raises(DataError, match=r"no columns 'stem' and 'subset' \(columns: stem, origin"):
        read_sources(tmp_path, "subset")
