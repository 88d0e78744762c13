"""The named resize variants against the libraries or formulas they are named after."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from metrics.pictures import picture_a, picture_b
from siamese_diffusion.metrics.resize import VARIANTS, resize, scale, square_crop
from siamese_diffusion.metrics.settings import Variant


def test_tf1_takes_the_source_index_without_a_half_pixel_shift() -> None:
    ramp = np.repeat(np.arange(4, dtype=np.uint8)[None, :, None] * 10, 4, axis=0)
    found = resize(np.repeat(ramp, 3, axis=2), 8, "tf1")
    # Index i * 4 / 8, and the last column repeats instead of reaching beyond the edge.
    np.testing.assert_allclose(found[0, 0], [0, 5, 10, 15, 20, 25, 30, 30])


def test_tf1_equals_a_literal_loop() -> None:
    image, side = picture_b(11), 7
    found = resize(image, side, "tf1")
    for i in range(side):
        for j in range(side):
            y, x = i * 11 / side, j * 11 / side
            y0, x0 = int(y), int(x)
            y1, x1 = min(y0 + 1, 10), min(x0 + 1, 10)
            dy, dx = y - y0, x - x0
            top = image[y0, x0] * (1 - dx) + image[y0, x1] * dx
            bottom = image[y1, x0] * (1 - dx) + image[y1, x1] * dx
            np.testing.assert_allclose(found[:, i, j], top * (1 - dy) + bottom * dy, atol=1e-3)


@pytest.mark.parametrize(("variant", "antialias"), [("torch", False), ("torch_aa", True)])
def test_torch_variants_are_torchs_bilinear(variant: Variant, antialias: bool) -> None:
    x = torch.from_numpy(picture_b(40)).permute(2, 0, 1)[None].float()
    expected = F.interpolate(x, (29, 29), mode="bilinear", antialias=antialias)
    np.testing.assert_allclose(resize(picture_b(40), 29, variant), expected[0].numpy(), atol=1e-4)


def test_clean_is_pillows_bicubic_in_float_clipped_but_not_rounded() -> None:
    image = picture_b(40)
    found = resize(image, 29, "clean")
    channel = Image.fromarray(image[..., 1].astype(np.float32))
    expected = np.asarray(channel.resize((29, 29), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(found[1], np.clip(expected, 0, 255))
    assert np.abs(found - np.round(found)).max() > 0.1
    edge = np.zeros((40, 40, 3), np.uint8)
    edge[:, 20:] = 255
    assert resize(edge, 57, "clean").min() == 0.0
    assert resize(edge, 57, "clean").max() == 255.0


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_image_of_the_right_size_is_left_alone(variant: Variant) -> None:
    found = resize(picture_a(29), 29, variant)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, picture_a(29).transpose(2, 0, 1), atol=1e-4)


@pytest.mark.parametrize("variant", VARIANTS)
def test_only_the_antialiased_variants_average_what_they_shrink(variant: Variant) -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::8] = 200  # one column of eight: the mean is 25
    inner = resize(stripes, 8, variant)[:, :, 1:-1]
    is_antialiased = variant in ("clean", "torch_aa")
    assert (np.abs(inner - 25).max() < 15) == is_antialiased


def test_variants_differ_on_a_fine_picture() -> None:
    found = [resize(picture_b(96), 47, variant) for variant in VARIANTS]
    for first in range(4):
        for second in range(first):
            assert np.abs(found[first] - found[second]).mean() > 0.5


def test_scaling_is_that_of_each_library() -> None:
    planes = np.array([0.0, 128.0, 255.0], np.float32)
    np.testing.assert_allclose(scale(planes, "clean"), [-1.0, 0.0, 127 / 128])
    np.testing.assert_allclose(scale(planes, "tf1"), [-1.0, 0.0, 127 / 128])
    np.testing.assert_allclose(scale(planes, "torch"), [-1.0, 1 / 255, 1.0], atol=1e-6)


def test_square_crop_takes_the_middle_of_the_longer_side() -> None:
    image = np.zeros((20, 60, 3), np.uint8)
    image[:, 20:40] = 200
    found = square_crop(image, 20, Image.Resampling.BICUBIC)
    assert found.shape == (20, 20, 3)
    assert int(found.min()) == 200
    assert square_crop(image, 10, Image.Resampling.BICUBIC).shape == (10, 10, 3)
