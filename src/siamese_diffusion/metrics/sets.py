"""The images that are compared: opened, hashed, and told which mask each was made from.

Free of torch. A synthetic set of ours says in its manifest which mask an image belongs to; in any
other folder the image's own stem says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from siamese_diffusion.core.artifacts import file_sha256, read_jsonl
from siamese_diffusion.core.errors import DataError
from siamese_diffusion.core.folders import SyntheticPaths
from siamese_diffusion.core.seeding import derive_seed
from siamese_diffusion.data.images import read_header
from siamese_diffusion.data.listing import collect, some, split_lists
from siamese_diffusion.data.pairs import PairFolder, image_fingerprint


@dataclass(frozen=True)
class ImageFile:
    """One picture; `mask_stem` is the stem of the mask it shows, `fold` counts its siblings."""

    stem: str
    path: Path
    sha256: str
    mask_stem: str
    fold: int
    size: tuple[int, int]


@dataclass(frozen=True)
class ImageSet:
    """Pictures of one folder (or split), sorted by stem."""

    root: Path
    split: str | None
    files: tuple[ImageFile, ...]
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.files)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over stems and bytes; not over paths."""
        return image_fingerprint((file.stem, file.sha256) for file in self.files)

    def subset(self, rows: Sequence[int]) -> ImageSet:
        """Some of the pictures, in their order here."""
        return ImageSet(self.root, self.split, tuple(self.files[i] for i in sorted(rows)))

    def halves(self, seed: int, number: int) -> tuple[ImageSet, ImageSet]:
        """Two random halves; an odd picture is left out."""
        rng = np.random.default_rng(derive_seed(seed, "halves", number))
        order = [int(i) for i in rng.permutation(len(self))]
        half = len(order) // 2
        return self.subset(order[:half]), self.subset(order[half : 2 * half])

    @property
    def name(self) -> str:
        """Path and split, for messages."""
        return f"'{self.root}'" + (f" ({self.split}.txt)" if self.split else "")


def open_set(root: Path, *, split: str | None = None) -> ImageSet:
    """Open a folder of pictures, or a data-set folder whose masks are not looked at.

    Raises:
        DataError: If the folder cannot be used, or its manifest contradicts its files.
    """
    folder = PairFolder.open(root, split=split, need="images")
    records = {str(r.get("id")): r for r in read_jsonl(SyntheticPaths(Path(root)).manifest)}

    def describe(index: int) -> ImageFile:
        pair = folder.pairs[index]
        assert pair.image is not None  # need="images" refuses such folders
        header = read_header(pair.image)
        record = records.get(pair.stem, {})
        fold = record.get("fold", 0)
        return ImageFile(
            stem=pair.stem,
            path=pair.image,
            sha256=file_sha256(pair.image),
            mask_stem=str(record.get("stem", pair.stem)),
            fold=fold if isinstance(fold, int) else 0,
            size=(header.width, header.height),
        )

    files = collect(describe, range(len(folder)))
    return ImageSet(Path(root), split, tuple(files), _warnings(root, files, records))


def open_real(root: Path, *, split: str | None = None) -> ImageSet:
    """Open the real side: without a split the list `train.txt` is used if there is one."""
    if split is None and Path(root).is_dir() and "train" in split_lists(Path(root)):
        split = "train"
    return open_set(root, split=split)


def one_per_mask(real: ImageSet, synthetic: ImageSet) -> ImageSet:
    """Protocol `paper`: the first synthetic image of every training mask, and of no other.

    Raises:
        DataError: Naming masks that have no image, or images of masks that are not of the set.
    """
    wanted = {file.mask_stem for file in real.files}
    first: dict[str, int] = {}
    for index, file in enumerate(synthetic.files):
        known = first.get(file.mask_stem)
        if known is None or file.fold < synthetic.files[known].fold:
            first[file.mask_stem] = index
    missing, foreign = sorted(wanted - first.keys()), sorted(first.keys() - wanted)
    if missing or foreign:
        parts = []
        if missing:
            parts.append(
                f"{len(missing)} of {len(wanted)} training masks have no synthetic image "
                f"({some(missing)})"
            )
        if foreign:
            parts.append(f"{len(foreign)} images are of masks not in {real.name} ({some(foreign)})")
        raise DataError(
            f"protocol 'paper' takes one synthetic image per training mask: {'; '.join(parts)}",
            hint="sample with --recipe real from the same split, name that split with --split, or "
            "use --protocol all",
        )
    return synthetic.subset(list(first.values()))


def partners(real: ImageSet, synthetic: ImageSet) -> tuple[list[int], list[int]]:
    """Rows of real and synthetic images that share a mask, one pair per synthetic image.

    Raises:
        DataError: Naming the synthetic images without a partner.
    """
    rows = {file.mask_stem: index for index, file in enumerate(real.files)}
    lonely = [file.stem for file in synthetic.files if file.mask_stem not in rows]
    if lonely:
        raise DataError(
            f"{len(lonely)} of {len(synthetic)} images of {synthetic.name} have no real image of "
            f"the same mask in {real.name} ({some(lonely)})",
            hint="paired metrics need equal stems or a manifest; choose others, such as "
            "--metrics fid,kid,lpips-cross",
        )
    return [rows[file.mask_stem] for file in synthetic.files], list(range(len(synthetic)))


def _warnings(
    root: Path, files: Sequence[ImageFile], records: dict[str, dict[str, object]]
) -> tuple[str, ...]:
    found = []
    changed = [
        f.stem for f in files if records.get(f.stem, {}).get("image_sha256") not in (None, f.sha256)
    ]
    if changed:
        found.append(
            f"{len(changed)} images of '{root}' are not the ones in its manifest ({some(changed)})"
        )
    counts = Counter(f.sha256 for f in files)
    repeated = sum(count - 1 for count in counts.values())
    if repeated:
        found.append(f"{repeated} of {len(files)} images of '{root}' are exact repeats of others")
    lossy = {f.path.suffix.lower() for f in files}
    if len(lossy) > 1:
        found.append(f"'{root}' mixes file formats: {', '.join(sorted(lossy))}")
    return tuple(found)
