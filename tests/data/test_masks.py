"""Which masks are accepted, by which rule, and which are refused."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from siamese_diffusion.core.errors import DataError
from siamese_diffusion.data.masks import binarise, combine, detect_rule, examine, require_rule


def disc(
    side: int = 64, value: int = 255, at: tuple[int, int] = (32, 30), r: int = 14
) -> np.ndarray:
    y, x = np.mgrid[:side, :side]
    mask: np.ndarray = np.where((y - at[0]) ** 2 + (x - at[1]) ** 2 <= r * r, value, 0)
    return mask.astype(np.uint8)


def as_jpeg(mask: np.ndarray, quality: int = 75) -> np.ndarray:
    stream = io.BytesIO()
    Image.fromarray(mask).save(stream, "JPEG", quality=quality)
    return np.array(Image.open(stream))


def supersampled(factor: int, side: int = 64) -> np.ndarray:
    big = Image.fromarray(disc(side * factor, at=(30 * factor, 33 * factor), r=13 * factor))
    return np.array(big.reduce(factor))


def two_labels(first: int, second: int) -> np.ndarray:
    upper, lower = disc(value=first, at=(16, 16), r=9), disc(value=second, at=(44, 44), r=12)
    return np.where(lower > 0, lower, upper)


def test_0_255_uses_the_papers_threshold() -> None:
    rule = detect_rule([("a.png", disc())])
    assert (rule.kind, rule.threshold) == ("0/255", 127.0)
    assert rule.statement == (
        "values 0 and 255: foreground is > 127 (the paper's threshold); seen in 1 masks"
    )
    np.testing.assert_array_equal(binarise(disc(), rule), disc())


def test_threshold_is_127_exclusive() -> None:
    rule = detect_rule([("a.png", disc())])
    assert binarise(np.array([[127, 128]], np.uint8), rule).tolist() == [[0, 255]]


def test_0_1_takes_1_as_foreground() -> None:
    rule = detect_rule([("a.png", disc(value=1)), ("b.png", disc(value=0))])
    assert (rule.kind, rule.threshold) == ("0/1", 0.0)
    assert "1 of them empty" in rule.statement
    np.testing.assert_array_equal(binarise(disc(value=1), rule), disc())


@pytest.mark.parametrize(("value", "kind"), [(65535, "0/65535"), (1, "0/1"), (255, "0/255")])
def test_sixteen_bit_masks(value: int, kind: str) -> None:
    levels = (disc(value=1) * np.uint16(value)).astype(np.uint16)
    rule = detect_rule([("a.png", levels)])
    assert rule.kind == kind
    np.testing.assert_array_equal(binarise(levels, rule), disc())


def test_sixteen_bit_soft_mask_scales_the_threshold() -> None:
    soft = supersampled(4)
    wide = soft.astype(np.uint16) * np.uint16(257)
    rule = detect_rule([("a.tif", wide)])
    assert rule.kind == "soft"
    np.testing.assert_array_equal(binarise(wide, rule), np.where(soft > 127, 255, 0))


@pytest.mark.parametrize("factor", [2, 3, 4, 8])
def test_anti_aliased_edges_are_soft_even_with_few_grey_values(factor: int) -> None:
    soft = supersampled(factor)
    assert examine(soft).kind == "soft"
    if factor == 2:
        assert len(np.unique(soft)) <= 5


@pytest.mark.parametrize("radius", [0.7, 2.0, 5.0])
def test_blurred_masks_are_soft(radius: float) -> None:
    blurred = Image.fromarray(disc(128, at=(64, 64), r=35)).filter(ImageFilter.GaussianBlur(radius))
    assert examine(np.array(blurred)).kind == "soft"


@pytest.mark.parametrize("scale", [2, 4])
def test_masks_enlarged_with_interpolation_are_soft(scale: int) -> None:
    side = 64 * scale
    enlarged = Image.fromarray(disc()).resize((side, side), Image.Resampling.BILINEAR)
    assert examine(np.array(enlarged)).kind == "soft"


@pytest.mark.parametrize("quality", [30, 75, 95])
def test_jpeg_of_a_binary_mask_is_soft_and_comes_back(quality: int) -> None:
    lossy = as_jpeg(disc(), quality)
    rule = detect_rule([("a.jpg", lossy)])
    assert rule.kind == "soft"
    assert (binarise(lossy, rule) != disc()).mean() < 0.005


def test_anti_aliased_thin_outlines_are_soft() -> None:
    big = Image.new("L", (512, 512))
    ImageDraw.Draw(big).line([(20, 30), (300, 350), (480, 400)], fill=255, width=16)
    assert examine(np.array(big.reduce(4))).kind == "soft"


def test_a_probability_map_that_fades_between_the_ends_is_soft() -> None:
    y, x = np.mgrid[:128, :128]
    distance = np.hypot(y - 64, x - 64)
    soft = (255 / (1 + np.exp((distance - 40) / 3))).astype(np.uint8)
    assert examine(soft).kind == "soft"


@pytest.mark.parametrize(
    ("mask", "named"),
    [
        (two_labels(1, 2), "values 0, 1, 2; none is near 255"),
        (two_labels(128, 255), "values 0, 128, 255; value 128 fills areas of its own"),
        (two_labels(1, 255), "values 0, 1, 255; value 1 fills areas of its own"),
        (two_labels(200, 255), "values 0, 200, 255; value 200 fills"),
        (disc(value=38), "values 0, 38; none is near 255"),
        (np.maximum(disc(value=255), 128).astype(np.uint8), "values 128, 255; none is near 0"),
    ],
)
def test_label_maps_are_refused_with_their_values(mask: np.ndarray, named: str) -> None:
    with pytest.raises(DataError, match=f"mask 'x.png' has {named}") as caught:
        detect_rule([("ok.png", disc()), ("x.png", mask)])
    assert "write 255 where the wanted label is" in str(caught.value)


def test_thin_labels_without_an_interior_are_refused() -> None:
    mask = disc()
    mask[2:60, 5] = 128  # a vessel of one pixel, far from the lesion
    refusal = examine(mask).refusal
    assert refusal is not None
    assert "values 0, 128, 255; most pixels of value 128" in refusal


@pytest.mark.parametrize("labels", [(128, 255), (85, 170)])
def test_jpeg_of_a_label_map_is_refused(labels: tuple[int, int]) -> None:
    mask = np.maximum(two_labels(*labels), disc(value=255, at=(12, 50), r=8))
    refusal = examine(as_jpeg(mask, 90), lossy=True).refusal
    assert refusal is not None
    assert "label map" in refusal


def test_instance_numbers_are_refused() -> None:
    mask = np.zeros((96, 96), np.uint8)
    for number in range(36):
        y, x = divmod(number, 6)
        mask[16 * y + 2 : 16 * y + 13, 16 * x + 2 : 16 * x + 13] = 7 * (number + 1)
    refusal = examine(mask).refusal
    assert refusal is not None
    assert "label map" in refusal
    assert "values 0, 1, 2, 3" in str(examine((mask // 7).astype(np.uint8)).refusal)


def test_a_photograph_is_refused() -> None:
    y, x = np.mgrid[:64, :64]
    photo = (40 + 2 * x + y + 20 * np.sin(y / 3)).astype(np.uint8)
    assert "looks like a photograph" in str(examine(photo | 1).refusal)


def test_a_few_odd_pixels_do_not_make_a_label_map() -> None:
    mask = disc()
    mask[3, 3] = mask[60, 7] = 128
    assert examine(mask).kind == "soft"


def test_compression_noise_on_black_is_an_empty_mask() -> None:
    noise = np.random.default_rng(0).integers(0, 4, (64, 64)).astype(np.uint8)
    assert examine(noise, lossy=True).kind == "empty"
    assert examine(noise).refusal is not None


def test_conflicting_rules_are_refused_with_an_example_of_each() -> None:
    with pytest.raises(DataError, match=r"'b\.png' has values 0 and 1, 'a\.png' is of kind 0/255"):
        detect_rule([("a.png", disc()), ("b.png", disc(value=1))])


def test_soft_and_plain_masks_share_a_rule() -> None:
    assert detect_rule([("a.png", disc()), ("b.png", supersampled(4))]).kind == "soft"


def test_many_refused_masks_are_shortened_to_five() -> None:
    named = [(f"{i}.png", two_labels(1, 2)) for i in range(8)]
    with pytest.raises(DataError, match="and 3 more masks like these"):
        detect_rule(named)


def test_empty_masks_alone_follow_the_papers_rule() -> None:
    assert detect_rule([("a.png", disc(value=0))]).kind == "0/255"


def test_no_masks_are_an_error() -> None:
    with pytest.raises(DataError, match="no mask to find a mask rule from"):
        detect_rule([])


def test_a_sample_is_stated() -> None:
    statement = combine({"a": examine(disc())}, total=3000).statement
    assert "seen in 1 of 3,000 masks" in statement


def test_a_mask_outside_the_sample_is_still_judged() -> None:
    rule = detect_rule([("a.png", disc())])
    with pytest.raises(DataError, match=r"'late\.png' is of kind 0/1, but .* is 0/255"):
        require_rule("late.png", disc(value=1), rule)
    with pytest.raises(DataError, match=r"mask 'late\.png' has values 0, 1, 2"):
        require_rule("late.png", two_labels(1, 2), rule)
    require_rule("empty.png", disc(value=0), rule)


def test_a_faint_mask_is_accepted_among_soft_ones_and_refused_alone() -> None:
    faint = np.array(Image.fromarray(disc(r=2)).reduce(4))
    assert 0 < faint.max() < 223
    soft = [(f"{i}.png", supersampled(4)) for i in range(4)]
    rule = detect_rule([*soft, ("faint.png", faint)])
    assert rule.kind == "soft"
    assert "1 of them faint or thin" in rule.statement
    require_rule("faint.png", faint, rule)
    with pytest.raises(DataError, match=r"mask 'faint\.png' has values .* none is near 255"):
        detect_rule([*soft[:3], ("faint.png", faint)])


def test_a_label_map_is_refused_even_among_soft_masks() -> None:
    soft = [(f"{i}.png", supersampled(4)) for i in range(20)]
    with pytest.raises(DataError, match=r"mask 'x\.png' has values 0, 1, 2"):
        detect_rule([*soft, ("x.png", two_labels(1, 2))])
