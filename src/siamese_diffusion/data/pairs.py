"""A data set is a folder of image-mask pairs; this module opens it and reads from it.

Opening reads names, lists and file headers only, and tells every problem at once. Pixels are
decoded when asked for. Real and synthetic sets are the same to all code that comes after.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np

from siamese_diffusion.core.artifacts import file_sha256
from siamese_diffusion.core.errors import DataError
from siamese_diffusion.data import images, masks
from siamese_diffusion.data.images import Pixels
from siamese_diffusion.data.listing import Need, PairFile, collect, list_folder
from siamese_diffusion.data.masks import MaskRule

__all__ = ["Need", "PairFile", "PairFolder", "load_arrays", "read_image", "read_mask"]

SAMPLE_MASKS: Final = 2000  # larger sets find their rule on this many masks, evenly spaced


@dataclass(frozen=True)
class PairFolder:
    """An opened data set, its pairs sorted by stem whatever the order of a split list."""

    root: Path
    split: str | None
    need: Need
    prompt: str
    """The prompt of pairs that have none of their own."""
    pairs: tuple[PairFile, ...]
    known_rule: MaskRule | None = field(default=None, repr=False)
    """A rule found before, as for a subset of an opened folder; None detects it when asked."""

    @classmethod
    def open(
        cls,
        root: Path,
        *,
        split: str | None = None,
        need: Need = "pairs",
        prompt: str | None = None,
    ) -> PairFolder:
        """Open a data-set folder, or the part of it that a split list names.

        Args:
            root: Folder with `images/` and `masks/`; images or masks alone may lie flat in it.
            split: Name of a list `<split>.txt`; only its stems are opened and judged.
            need: What the caller reads.
            prompt: Overrides every prompt of the folder.

        Raises:
            DataError: With all problems found in names, lists and headers.
        """
        listing = list_folder(root, split=split, need=need, prompt=prompt)
        if listing.problems:
            what = f"data set '{root}'" + (f", split '{split}'" if split else "")
            raise DataError(
                f"{what} cannot be used:\n" + "\n".join(f"- {p}" for p in listing.problems),
                hint=f"mend the files, then see: siamdiff data check {root}",
            )
        return cls(Path(root), split, need, listing.prompt, tuple(listing.pairs))

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def stems(self) -> tuple[str, ...]:
        """The stems in order."""
        return tuple(pair.stem for pair in self.pairs)

    def image(self, index: int, size: int | None = None) -> Pixels:
        """Image as RGB uint8 (size, size, 3), or at its own size if `size` is None.

        Raises:
            DataError: If the file is damaged or the folder was opened for masks only.
        """
        image = read_image(self.pairs[index])
        return image if size is None else images.resize_image(image, size)

    def mask(self, index: int, size: int | None = None) -> Pixels:
        """Mask as uint8 {0, 255} (size, size), or at its own size if `size` is None.

        Raises:
            DataError: If the file is damaged, not covered by the folder's rule, or the folder
                was opened for images only.
        """
        return read_mask(self.pairs[index], self.mask_rule, size)

    @cached_property
    def mask_rule(self) -> MaskRule:
        """Which values are foreground, found over all masks of this folder (or split).

        Raises:
            DataError: Naming unreadable masks, masks that are not binary, or conflicting ones.
        """
        if self.known_rule is not None:
            return self.known_rule
        step = max(1.0, len(self) / SAMPLE_MASKS)
        chosen = [self.pairs[int(i * step)] for i in range(min(len(self), SAMPLE_MASKS))]
        evidence = dict(collect(_examine_mask, chosen))
        return masks.combine(evidence, total=len(self))

    def without(self, stems: Iterable[str]) -> PairFolder:
        """The same set less some pairs.

        Raises:
            DataError: If nothing is left.
        """
        dropped = set(stems)
        kept = tuple(pair for pair in self.pairs if pair.stem not in dropped)
        if not kept:
            raise DataError(
                f"no pair of '{self.root}' is left after dropping {len(dropped)}",
                hint="see what is wrong with: siamdiff data check " + str(self.root),
            )
        # The rule stays that of the whole: dropping pairs must not change what a pixel means.
        rule = self.mask_rule if self.need != "images" else None
        return replace(self, pairs=kept, known_rule=rule)

    def degenerate(self, size: int | None = None) -> dict[str, list[str]]:
        """Stems whose mask is "empty" or all foreground ("full"), as stored or after resizing.

        With `size`, lesions too thin to survive the nearest-neighbour resize count as empty.
        """
        rule = self.mask_rule

        def share(pair: PairFile) -> tuple[str, float]:
            return pair.stem, float(read_mask(pair, rule, size).mean()) / 255

        shares = collect(share, self.pairs)
        return {
            "empty": [stem for stem, value in shares if value == 0.0],
            "full": [stem for stem, value in shares if value == 1.0],
        }

    def fingerprint(self) -> str:
        """SHA-256 of content: stems, bytes of all files, prompts and mask rule; not of paths."""

        def line(pair: PairFile) -> str:
            parts = [file_sha256(p) if p else "-" for p in (pair.image, pair.mask)]
            return "\t".join([pair.stem, *parts, pair.prompt])

        digest = hashlib.sha256()
        for text in sorted(collect(line, self.pairs)):
            digest.update(f"{text}\n".encode())
        rule = "-" if self.need == "images" else f"{self.mask_rule.kind}>{self.mask_rule.threshold}"
        digest.update(rule.encode())
        return digest.hexdigest()


def image_fingerprint(hashes: Iterable[tuple[str, str]]) -> str:
    """SHA-256 over stems and file hashes of pictures in their order; not over masks or paths."""
    digest = hashlib.sha256()
    for stem, sha256 in hashes:
        digest.update(f"{stem}\t{sha256}\n".encode())
    return digest.hexdigest()


def load_arrays(
    folder: PairFolder, size: int, *, progress: Callable[[int, int], None] | None = None
) -> tuple[Pixels | None, Pixels | None]:
    """Decode a whole set into memory.

    Args:
        folder: An opened set.
        size: Side in pixels.
        progress: Called with (done, total) after each pair.

    Returns:
        Images uint8 (N, size, size, 3), or None if the folder was opened for masks; and masks
        uint8 {0, 255} (N, size, size), or None if it was opened for images.

    Raises:
        DataError: Naming all files that cannot be read.
    """
    n = len(folder)
    rule = folder.mask_rule if folder.need != "images" else None
    pictures = np.empty((n, size, size, 3), np.uint8) if folder.need != "masks" else None
    outlines = np.empty((n, size, size), np.uint8) if rule is not None else None

    def load(index: int) -> None:
        if pictures is not None:
            pictures[index] = folder.image(index, size)
        if outlines is not None and rule is not None:
            outlines[index] = read_mask(folder.pairs[index], rule, size)

    collect(load, range(n), progress=progress)
    return pictures, outlines


def read_image(pair: PairFile) -> Pixels:
    """Decode the image of a pair; DataError if it has none."""
    if pair.image is None:
        raise DataError(f"'{pair.stem}' has no image: its folder was opened for masks only")
    return images.read_image(pair.image)


def read_mask(pair: PairFile, rule: MaskRule, size: int | None = None) -> Pixels:
    """Decode the mask of a pair by a rule; DataError if it has none or the rule cannot hold."""
    if pair.mask is None:
        raise DataError(f"'{pair.stem}' has no mask: its folder was opened for images only")
    levels = images.read_levels(pair.mask)
    masks.require_rule(str(pair.mask), levels, rule, lossy=images.is_lossy(pair.mask))
    mask = masks.binarise(levels, rule)
    return mask if size is None else images.resize_mask(mask, size)


def _examine_mask(pair: PairFile) -> tuple[str, masks.Evidence]:
    if pair.mask is None:
        raise DataError(f"'{pair.stem}' has no mask: its folder was opened for images only")
    levels = images.read_levels(pair.mask)
    return str(pair.mask), masks.examine(levels, lossy=images.is_lossy(pair.mask))
