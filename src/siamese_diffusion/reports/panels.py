"""Pictures of a report: outlined real and synthetic pairs and sample grids, as data URIs.

Thumbnails only, so that a page stays small. A picture that cannot be read becomes a remark on the
page, never a failed report.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from siamese_diffusion.core.artifacts import file_sha256
from siamese_diffusion.core.errors import DataError
from siamese_diffusion.core.folders import RunPaths, SyntheticPaths
from siamese_diffusion.data.images import Pixels, read_image, read_levels, resize_image
from siamese_diffusion.data.listing import PairFile, list_folder
from siamese_diffusion.data.masks import MaskRule, binarise
from siamese_diffusion.reports import words

THUMBNAIL: Final = 192  # pixels along each side
MOST_ITEMS: Final = 24
MOST_GRIDS: Final = 8
GRID_WIDTH: Final = 1000  # pixels
PHANTOM_RECORD: Final = "phantom.json"  # written beside phantoms by their generator
SYNTHETIC_COMMENT: Final = "Synthetic=true; Software=siamese-diffusion"
OUTLINE_COLOUR: Final = (0, 240, 255)  # mucosa and skin hold no cyan
_HALO_COLOUR: Final = (0, 20, 30)
_FINE: Final = 3  # outlines are drawn this many times larger and averaged: smooth edges
_QUALITY: Final = 85
_MASK_THRESHOLD: Final = 127
_T = TypeVar("_T")
SourceKind = Literal["real", "phantom", "synthetic"]


@dataclass(frozen=True)
class Tile:
    """One picture: `kind` is "mask" or what `source_kind` tells apart."""

    kind: str
    caption: str
    alt: str
    uri: str


@dataclass(frozen=True)
class Item:
    """One synthetic image beside what it was made from, with its seed and settings in words."""

    name: str
    tiles: tuple[Tile, ...]
    facts: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Panels:
    """Items of a synthetic set, what their masks' own images are, and remarks."""

    items: tuple[Item, ...]
    source: SourceKind
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class Row:
    """A strip of samples of a run, sizes in pixels."""

    step: int
    uri: str
    width: int
    height: int


@dataclass(frozen=True)
class Grids:
    """Samples over a training; `given` holds the masks and their images if they come apart."""

    given: Row | None
    rows: tuple[Row, ...]
    remarks: tuple[str, ...]


def synthetic_items(
    root: Path, header: Mapping[str, object], records: Sequence[Mapping[str, object]], most: int
) -> Panels:
    """Panels of items spread evenly over a synthetic set, and remarks on what is missing.

    Args:
        root: The synthetic set.
        header: Content of its plan.json.
        records: Lines of its manifest.
        most: Items shown at most.
    """
    remarks: list[str] = []
    sources = _Sources(header, remarks)
    items = []
    for record in evenly(records, most):
        name = str(record.get("id"))
        try:
            items.append(_item(SyntheticPaths(root), name, record, sources))
        except DataError as error:
            remarks.append(f"Item {name} is not shown: {error.message}.")
    return Panels(tuple(items), sources.kind, tuple(dict.fromkeys(remarks)))


def source_kind(folder: Path) -> SourceKind:
    """What the images of a data set are; those of unknown origin count as real."""
    if (folder / PHANTOM_RECORD).is_file():
        return "phantom"
    return "synthetic" if SyntheticPaths(folder).plan_header.is_file() else "real"


def sample_grids(root: Path, columns: int | None, most: int) -> Grids:
    """Samples at steps spread evenly over a run, the first and the last among them.

    Args:
        root: The run folder.
        columns: Masks in a grid, if recorded. Grids of three square rows (masks, images, samples)
            are then taken apart, as only their last row changes; others are shown whole.
        most: Grids shown at most.
    """
    rows, remarks = [], []
    first: Row | None = None
    for path in evenly(sorted(RunPaths(root).samples.glob("step-*.png")), most):
        try:
            pixels = read_image(path)
        except DataError as error:
            remarks.append(f"A sample grid is not shown: {error.message}.")
            continue
        digits = path.stem.removeprefix("step-")
        step = int(digits) if digits.isdecimal() else 0
        height, width = pixels.shape[:2]
        if columns and abs(width / columns - height / 3) < 1:  # equal but for a gap at the end
            cut = round(height * 2 / 3)
            if first is None:
                first = _row(step, pixels[:cut], "")
            pixels = pixels[cut:]
        rows.append(_row(step, pixels, SYNTHETIC_COMMENT))
    return Grids(first, tuple(rows), tuple(remarks))


def _row(step: int, pixels: Pixels, comment: str) -> Row:
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    picture.thumbnail((GRID_WIDTH, GRID_WIDTH * 4), Image.Resampling.LANCZOS)
    return Row(step, jpeg_uri(picture, comment), *picture.size)


def evenly(values: Sequence[_T], most: int) -> list[_T]:
    """At most `most` values at equal distances, both ends among them; order is kept."""
    n = len(values)
    if n <= most:
        return list(values)
    if most < 2:
        return list(values[:most])
    return [values[round(i * (n - 1) / (most - 1))] for i in range(most)]


def outlined(
    image: Pixels, mask: Pixels, colour: tuple[int, int, int] = OUTLINE_COLOUR
) -> Image.Image:
    """The image with the outline of the mask: a bright line with a dark halo.

    Args:
        image: RGB uint8 (S, S, 3).
        mask: uint8 {0, 255}, any size; stretched over the image.
        colour: RGB of the line.
    """
    size = (image.shape[1] * _FINE, image.shape[0] * _FINE)
    smooth = Image.fromarray(mask).resize(size, Image.Resampling.BICUBIC)
    inside = np.asarray(smooth) > _MASK_THRESHOLD
    picture = Image.fromarray(image)
    for ink, width in ((_HALO_COLOUR, 4), (colour, 2)):  # in image pixels
        reach = width * _FINE // 2
        band = np.where(_grown(inside, reach) & _grown(~inside, reach), 255, 0).astype(np.uint8)
        alpha = Image.fromarray(band).resize(picture.size, Image.Resampling.BOX)
        picture.paste(Image.new("RGB", picture.size, ink), mask=alpha)
    return picture


def _grown(inside: npt.NDArray[np.bool_], reach: int) -> npt.NDArray[np.bool_]:
    """The area and all within a square of `reach` pixels round it."""
    for _ in range(2):  # rows, then columns
        grown = inside.copy()
        for shift in range(1, reach + 1):
            grown[shift:] |= inside[:-shift]
            grown[:-shift] |= inside[shift:]
        inside = grown.T
    return inside


def jpeg_uri(picture: Image.Image, comment: str = "") -> str:
    """A picture as a JPEG data URI; the comment stays in the picture when it is copied."""
    buffer = io.BytesIO()
    picture.convert("RGB").save(
        buffer, "JPEG", quality=_QUALITY, optimize=True, comment=comment.encode("ascii")
    )
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def synthetic_tile(caption: str, alt: str, picture: Image.Image) -> Tile:
    """A synthetic picture as a tile, marked as one in the file too."""
    return Tile("synthetic", caption, alt, jpeg_uri(picture, SYNTHETIC_COMMENT))


def png_uri(picture: Image.Image) -> str:
    """A picture as a PNG data URI, for masks."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


class _Sources:
    """The pairs a synthetic set took its masks from, as far as they are still there."""

    def __init__(self, header: Mapping[str, object], remarks: list[str]) -> None:
        origin, settings = header.get("origin"), header.get("settings")
        origin = origin if isinstance(origin, Mapping) else {}
        settings = settings if isinstance(settings, Mapping) else {}
        self._remarks = remarks
        self._rule = _rule(settings.get("mask_rule"))
        self._pairs: dict[str, PairFile] = {}
        self.kind: SourceKind = "real"
        self.settings = f"{words.sampling(settings)}; guidance {words.guidance(settings)}"
        where = origin.get("masks")
        if not isinstance(where, str) or self._rule is None:
            remarks.append(
                "The masks' own images are not shown: the folder of masks was not recorded."
            )
            return
        if not Path(where).is_dir():
            remarks.append(
                f"The masks' own images are not shown: '{where}' is not found from here."
            )
            return
        self.kind = source_kind(Path(where))
        split = settings.get("split")
        listing = list_folder(
            Path(where), split=split if isinstance(split, str) else None, need="pairs"
        )
        self._pairs = {pair.stem: pair for pair in listing.pairs}
        if not self._pairs:
            remarks.append(f"The masks' own images are not shown: '{where}' holds masks only.")

    def tile(self, record: Mapping[str, object]) -> Tile | None:
        """The mask's own image with its outline, or None."""
        pair = self._pairs.get(str(record.get("stem")))
        if pair is None or pair.image is None or pair.mask is None or self._rule is None:
            return None
        try:
            if file_sha256(pair.mask) != record.get("source_sha256"):
                self._remarks.append(f"The mask of '{pair.stem}' changed since; it is not shown.")
                return None
            image = resize_image(read_image(pair.image), THUMBNAIL)
            mask = binarise(read_levels(pair.mask), self._rule)
        except DataError as error:
            self._remarks.append(f"An image is not shown: {error.message}.")
            return None
        moved = bool(record.get("transform"))
        caption = "its mask before it was moved" if moved else "with its mask"
        what = f"{self.kind.capitalize()} image {pair.stem} with the outline of its mask"
        return Tile(self.kind, caption, f"{what}, {_covers(mask)}", jpeg_uri(outlined(image, mask)))


def _item(
    paths: SyntheticPaths, name: str, record: Mapping[str, object], sources: _Sources
) -> Item:
    image = resize_image(read_image(paths.image(name)), THUMBNAIL)
    levels = read_levels(paths.mask(name))
    mask = np.where(levels > _MASK_THRESHOLD, 255, 0).astype(np.uint8)
    first = sources.tile(record)
    if first is None:
        small = Image.fromarray(mask).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.NEAREST)
        alt = f"Mask of item {name}, {_covers(mask)}"
        first = Tile("mask", "asked for", alt, png_uri(small))
    tiles = (
        first,
        synthetic_tile(
            "with the mask asked for",
            f"Synthetic image {name} with the outline of the mask asked for, {_covers(mask)}",
            outlined(image, mask),
        ),
        synthetic_tile(
            "as made", f"Synthetic image {name} without outline", Image.fromarray(image)
        ),
    )
    facts = [
        ("Seed", str(record.get("seed", "not recorded"))),
        ("Settings", sources.settings),
        ("Mask", str(record.get("source", "not recorded"))),
        ("Prompt", str(record.get("prompt", "not recorded")) or "(empty)"),
        ("Mask moved", transform_words(record.get("transform"))),
    ]
    return Item(name, tiles, tuple(facts))


def transform_words(transform: object) -> str:
    """A mask transform as a clinician would say it."""
    if not isinstance(transform, Mapping) or not transform:
        return "no"
    told = []
    for key, text in (("flip_horizontal", "left-right"), ("flip_vertical", "top-bottom")):
        if transform.get(key):
            told.append(f"mirrored {text}")
    numbers = {k: v for k, v in transform.items() if isinstance(v, int | float)}
    if (scale := float(numbers.get("scale", 1.0))) != 1.0:
        told.append(f"scaled x{scale:.2f}")
    right, down = float(numbers.get("shift_x", 0.0)), float(numbers.get("shift_y", 0.0))
    if right or down:
        told.append(f"shifted {right:+.0%} across, {down:+.0%} down")
    known = {"flip_horizontal", "flip_vertical", "scale", "shift_x", "shift_y"}
    if not told and not known & transform.keys():
        return json.dumps(dict(transform))
    return ", ".join(told) or "no"


def _rule(recorded: object) -> MaskRule | None:
    if not isinstance(recorded, Mapping):
        return None
    kind, threshold = recorded.get("kind"), recorded.get("threshold")
    if not isinstance(threshold, int | float):
        return None
    for known in ("0/255", "0/65535", "0/1", "soft"):
        if kind == known:
            return MaskRule(known, float(threshold), "")
    return None


def _covers(mask: Pixels) -> str:
    return f"which covers {np.count_nonzero(mask) / mask.size:.1%} of the picture"
