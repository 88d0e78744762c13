"""Pictures of single images that an audit names: worst pairs with outlines, nearest neighbours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from siamese_diffusion.core.errors import DataError
from siamese_diffusion.core.folders import AuditPaths
from siamese_diffusion.data.images import read_image, read_levels, resize_image
from siamese_diffusion.data.pairs import PairFolder
from siamese_diffusion.reports import panels
from siamese_diffusion.reports.panels import THUMBNAIL, Tile, synthetic_tile
from siamese_diffusion.reports.reading import number_of

FOUND_COLOUR = (255, 220, 0)


@dataclass(frozen=True)
class Example:
    """Pictures side by side with a line about them; `is_flagged`: found wanting."""

    name: str
    tiles: tuple[Tile, ...]
    words: str
    is_flagged: bool = False


def worst_examples(
    audit: Path, root: Path, sets: Sequence[Path], pairs: Sequence[Mapping[str, object]]
) -> tuple[tuple[Example, ...], tuple[str, ...]]:
    """Pairs as they are, with the outline asked for, and with what was found.

    Args:
        audit: Folder of the alignment audit, where what was found lies.
        root: The set as the audit was given it.
        sets: Sets of the page; one of the same name is taken if `root` is not there.
        pairs: Lines of the audit, worst first.

    Returns:
        Examples, and remarks on what cannot be shown.
    """
    try:
        folder = PairFolder.open(_there(root, sets))
    except DataError:
        return (), (f"The worst pairs are not shown: '{root}' is not found from here.",)
    place = {stem: row for row, stem in enumerate(folder.stems)}
    examples, remarks = [], []
    for pair in pairs:
        stem = str(pair["stem"])
        dice, boundary = number_of(pair["dice"]) or 0.0, number_of(pair["boundary"]) or 0.0
        try:
            if stem not in place:
                raise DataError(f"the set has no pair '{stem}' any more")
            image = folder.image(place[stem], THUMBNAIL)
            mask = folder.mask(place[stem])
            tiles = [
                synthetic_tile(
                    "with the outline asked for",
                    f"Synthetic image {stem} with the outline of its mask",
                    panels.outlined(image, mask),
                )
            ]
            path = AuditPaths(audit).found_in(stem)
            if path.is_file():
                area = np.where(read_levels(path) > 0, 255, 0).astype(np.uint8)
                found = panels.outlined(image, area, colour=FOUND_COLOUR)
                nothing = "" if area.any() else ": nothing"
                tiles.append(
                    synthetic_tile(
                        f"with the outline found{nothing}",
                        f"The same image with the outline that was found in it{nothing}",
                        found,
                    )
                )
            tiles.append(
                synthetic_tile(
                    "as made", f"Synthetic image {stem} without outline", Image.fromarray(image)
                )
            )
        except DataError as error:
            remarks.append(f"{stem} is not shown: {error.message}.")
            continue
        examples.append(
            Example(
                stem,
                tuple(tiles),
                f"Dice {dice:.2f}; outlines {boundary:.1%} of the diagonal apart",
            )
        )
    return tuple(examples), tuple(remarks)


def neighbour_examples(
    root: Path, sets: Sequence[Path], neighbours: Sequence[Mapping[str, object]]
) -> tuple[tuple[Example, ...], tuple[str, ...]]:
    """Synthetic images beside the training images closest to them.

    Args:
        root: The set as the audit was given it.
        sets: Sets of the page; one of the same name is taken if a picture is not there.
        neighbours: Lines of the memorisation audit, closest first.

    Returns:
        Examples, and remarks on what cannot be shown.
    """
    examples, remarks = [], []
    for one in neighbours:
        stem, nearest, turn = (str(one[key]) for key in ("stem", "nearest", "turn"))
        distance, limit = number_of(one["distance"]) or 0.0, number_of(one["threshold"]) or 0.0
        try:
            path, source = Path(str(one["path"])), Path(str(one["nearest_path"]))
            if not path.is_file():
                path = _there(root, sets) / "images" / path.name
            made = resize_image(read_image(path), THUMBNAIL)
            real = resize_image(read_image(source), THUMBNAIL)
        except DataError as error:
            remarks.append(f"{stem} is not shown: {error.message}.")
            continue
        kind = panels.source_kind(source.parent.parent)
        tiles = (
            synthetic_tile(stem, f"Synthetic image {stem}", Image.fromarray(made)),
            Tile(
                kind,
                f"closest training image, {nearest}",
                f"The training image closest to it, {nearest}",
                panels.jpeg_uri(Image.fromarray(real)),
            ),
        )
        near = distance < limit
        told = f"below {limit:.3f}: a near copy" if near else f"near copies are below {limit:.3f}"
        examples.append(
            Example(
                stem,
                tiles,
                f"Distance {distance:.3f} ({one['space']}, compared {turn}); {told}",
                near,
            )
        )
    return tuple(examples), tuple(remarks)


def image_examples(
    root: Path, sets: Sequence[Path], images: Sequence[tuple[str, str, bool]]
) -> tuple[tuple[Example, ...], tuple[str, ...]]:
    """Synthetic images alone, with a line about each.

    Args:
        root: The set as the audit was given it.
        sets: Sets of the page; one of the same name is taken if `root` is not there.
        images: Stem, line and whether it was found wanting, worst first.

    Returns:
        Examples, and remarks on what cannot be shown.
    """
    try:
        folder = PairFolder.open(_there(root, sets), need="images")
    except DataError:
        return (), (f"The images are not shown: '{root}' is not found from here.",)
    place = {stem: row for row, stem in enumerate(folder.stems)}
    examples, remarks = [], []
    for stem, told, is_flagged in images:
        try:
            if stem not in place:
                raise DataError(f"the set has no image '{stem}' any more")
            picture = Image.fromarray(folder.image(place[stem], THUMBNAIL))
        except DataError as error:
            remarks.append(f"{stem} is not shown: {error.message}.")
            continue
        tile = synthetic_tile("as made", f"Synthetic image {stem}", picture)
        examples.append(Example(stem, (tile,), told, is_flagged))
    return tuple(examples), tuple(remarks)


def _there(root: Path, sets: Sequence[Path]) -> Path:
    """The folder itself, or the set of the page that has its name."""
    if root.is_dir():
        return root
    return next((path for path in sets if path.resolve().name == root.name), root)
