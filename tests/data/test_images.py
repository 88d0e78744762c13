"""Decoding of every supported format, damage, and resizing."""

from __future__ import annotations

import contextlib
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from siamese_diffusion.core.errors import DataError
from siamese_diffusion.data.images import (
    is_picture,
    read_header,
    read_image,
    read_levels,
    resize_image,
    resize_mask,
)


def picture(height: int = 6, width: int = 9) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)


def write_png16(path: Path, values: np.ndarray) -> Path:
    """A 16-bit RGB PNG, which Pillow cannot write."""
    height, width, _ = values.shape
    raw = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff", ".bmp", ".PNG"])
def test_lossless_rgb_is_read_as_written(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    Image.fromarray(picture()).save(path)
    assert is_picture(path)
    np.testing.assert_array_equal(read_image(path), picture())


def test_jpeg_is_read_as_rgb(tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 8, 3), 90, np.uint8)).save(tmp_path / "a.jpg")
    image = read_image(tmp_path / "a.jpg")
    assert image.shape == (8, 8, 3)
    assert np.abs(image.astype(int) - 90).max() <= 2


@pytest.mark.parametrize("mode", ["L", "LA", "P", "1", "RGBA"])
def test_every_mode_becomes_rgb_uint8(tmp_path: Path, mode: str) -> None:
    grey = np.repeat(np.array([[0, 255], [255, 0]], np.uint8)[..., None], 3, axis=2)
    Image.fromarray(grey).convert(mode).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), grey)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bit_grey_is_divided_by_257_and_rounded(tmp_path: Path, suffix: str) -> None:
    values = np.array([[0, 128, 129], [257, 32896, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / f"a{suffix}")
    image = read_image(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(image[..., 0], [[0, 0, 1], [1, 128, 255]])
    np.testing.assert_array_equal(image[..., 0], image[..., 2])


def test_sixteen_bit_colour_is_read(tmp_path: Path) -> None:
    path = write_png16(tmp_path / "a.png", np.full((3, 4, 3), 40000))
    assert read_image(path).shape == (3, 4, 3)
    assert int(read_image(path)[0, 0, 0]) == 156


def test_sixteen_bit_colour_mask_of_ones_is_refused_rather_than_read_as_empty(
    tmp_path: Path,
) -> None:
    with pytest.raises(DataError, match=r"a\.png' is a 16-bit colour picture .* below 256"):
        read_levels(write_png16(tmp_path / "a.png", np.ones((3, 4, 3))))


def test_floating_point_image_is_refused_with_its_range(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0.25, 0.75]], np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match=r"a\.tif' holds values from 0\.25 to 0\.75"):
        read_image(tmp_path / "a.tif")


def test_floating_point_mask_of_whole_numbers_is_read(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0.0, 1.0]], np.float32)).save(tmp_path / "a.tif")
    np.testing.assert_array_equal(read_levels(tmp_path / "a.tif"), [[0, 1]])


def test_exif_orientation_is_applied_to_image_and_header(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by 90 degrees
    Image.fromarray(picture(6, 9)).save(tmp_path / "a.jpg", exif=exif)
    header = read_header(tmp_path / "a.jpg")
    assert (header.width, header.height, header.turned) == (6, 9, True)
    assert read_image(tmp_path / "a.jpg").shape == (9, 6, 3)


def test_tif_of_several_pages_is_refused(tmp_path: Path) -> None:
    pages = [Image.new("L", (4, 4)) for _ in range(3)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(DataError, match=r"a\.tif' holds 3 pages; one is allowed"):
        read_header(tmp_path / "a.tif")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp"])
def test_truncated_file_is_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"cut{suffix}"
    Image.fromarray(picture(64, 64)).save(path)
    path.write_bytes(path.read_bytes()[:-900])
    with pytest.raises(DataError, match=rf"cut\{suffix}' is truncated"):
        read_image(path)


def test_file_that_is_no_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("hello")
    with pytest.raises(DataError, match=r"a\.png' is not a picture"):
        read_image(tmp_path / "a.png")
    (tmp_path / "b.png").touch()
    with pytest.raises(DataError, match=r"b\.png' is an empty file"):
        read_header(tmp_path / "b.png")
    with pytest.raises(DataError, match=r"c\.png' does not exist"):
        read_header(tmp_path / "c.png")


def test_damaged_bytes_never_give_anything_but_a_data_error(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    for suffix in (".png", ".jpg", ".bmp"):
        path = tmp_path / f"a{suffix}"
        Image.fromarray(picture(20, 20)).save(path)
        good = path.read_bytes()
        for _ in range(60):
            bad = bytearray(good[: rng.integers(1, len(good) + 1)])
            bad[rng.integers(0, len(bad))] = rng.integers(0, 256)
            path.write_bytes(bad)
            # Some damage goes unnoticed by the format; any other exception fails the test.
            with contextlib.suppress(DataError):
                read_levels(path)


def test_mask_of_equal_channels_gives_that_channel(tmp_path: Path) -> None:
    grey = np.zeros((5, 5), np.uint8)
    grey[1:3] = 255
    Image.fromarray(np.repeat(grey[..., None], 3, axis=2)).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_levels(tmp_path / "a.png"), grey)


def test_coloured_mask_is_refused_with_its_colours(tmp_path: Path) -> None:
    colour = np.zeros((5, 5, 3), np.uint8)
    colour[1, 1] = (128, 0, 0)
    colour[2, 2] = (0, 64, 0)
    Image.fromarray(colour).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png' has colours: RGB \(0, 64, 0\), \(128, 0, 0\);"):
        read_levels(tmp_path / "a.png")


def test_transparent_mask_is_refused(tmp_path: Path) -> None:
    rgba = np.full((5, 5, 4), 255, np.uint8)
    rgba[2:, :, 3] = 0
    Image.fromarray(rgba).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png' has transparent pixels"):
        read_levels(tmp_path / "a.png")


def test_one_bit_mask_becomes_0_and_255(tmp_path: Path) -> None:
    bits = np.eye(4, dtype=bool)
    for suffix in (".png", ".tif", ".bmp"):
        Image.fromarray(bits).save(tmp_path / f"a{suffix}")
        np.testing.assert_array_equal(read_levels(tmp_path / f"a{suffix}"), bits * 255)


@pytest.mark.parametrize(
    ("palette", "expected"),
    [([0, 0, 0, 255, 255, 255], 255), ([255, 255, 255, 0, 0, 0], 0), ([0, 0, 0, 128, 0, 0], 1)],
)
def test_palette_gives_black_and_white_or_else_its_indices(
    tmp_path: Path, palette: list[int], expected: int
) -> None:
    mask = Image.new("P", (2, 2))
    mask.putpalette(palette)
    mask.putpixel((1, 0), 1)
    mask.save(tmp_path / "a.png")
    assert int(read_levels(tmp_path / "a.png")[0, 1]) == expected


def test_shrinking_averages_rather_than_skips_pixels() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 200
    small = resize_image(stripes, 8)
    assert small.shape == (8, 8, 3)
    assert np.abs(small[:, 1:-1].astype(int) - 100).max() <= 8


def test_resize_does_not_keep_the_aspect() -> None:
    assert resize_image(picture(6, 9), 16).shape == (16, 16, 3)


def test_resized_mask_holds_no_new_values() -> None:
    mask = np.zeros((7, 11), np.uint8)
    mask[2:5, 3:9] = 255
    for size in (5, 16, 64):
        assert set(np.unique(resize_mask(mask, size))) == {0, 255}
